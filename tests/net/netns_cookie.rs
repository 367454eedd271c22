//! The cookie by which programs know a network namespace.

use std::collections::BTreeSet;

use dpd::net::{is_initial_netns, netns_cookie};

use super::Netns;

#[test]
fn each_network_namespace_has_a_cookie_of_its_own() {
    let cookie = || netns_cookie().expect("the namespace's cookie");
    let own = cookie();
    assert_ne!(own, 0);
    assert_eq!(std::thread::spawn(cookie).join().expect("a thread"), own);
    let (one, two) = (Netns::new(), Netns::new());
    let all: BTreeSet<u64> = [own, one.enter(cookie), two.enter(cookie)].into();
    assert_eq!(all.len(), 3);
    assert_eq!(one.enter(cookie), one.enter(cookie));
    assert!(!one.enter(is_initial_netns), "it is the test's");
}
