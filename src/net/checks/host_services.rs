//! Whether the host's own sockets can reach the services.

use crate::config::Config;
use crate::net::cgroup::{Cgroup, CgroupError, find_cgroup};
use crate::net::netns_cookie::is_initial_netns;

pub fn check(config: &Config) -> Option<String> {
    let is_wanted = config.host.services && !config.services.is_empty();
    is_wanted.then(|| lack(&find_cgroup(), is_initial_netns()))?
}

/// A part of the control groups is enough in a network namespace of its own: a container's processes are all in its part. The
/// host's are not.
fn lack(cgroup: &Result<Cgroup, CgroupError>, is_initial_netns: bool) -> Option<String> {
    match cgroup {
        Err(error) => Some(format!(
            "the host's own sockets reach no service (host.services = false accepts that), since {error}"
        )),
        Ok(cgroup) if cgroup.is_root || !is_initial_netns => None,
        Ok(cgroup) => Some(format!(
            "the host's own sockets reach the services only from processes in {}, which is a part of the host's control \
             groups, as in a container: run dpd in the host's cgroup namespace (as with --cgroupns=host), or set \
             host.services = false",
            cgroup.path.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::path::PathBuf;

    use super::*;

    fn cgroup(is_root: bool) -> Result<Cgroup, CgroupError> {
        Ok(Cgroup {
            path: "/sys/fs/cgroup".into(),
            folder: File::open("/").unwrap().into(),
            is_root,
        })
    }

    #[test]
    fn what_the_host_lacks_is_named_with_what_to_do() {
        let refused = io::Error::from(io::ErrorKind::PermissionDenied);
        let unusable = CgroupError::Unusable(PathBuf::from("/sys/fs/cgroup"), refused);
        let rows = [
            ("all of it", cgroup(true), true, None),
            (
                "all of it, for a container's network",
                cgroup(true),
                false,
                None,
            ),
            (
                "a container with a network of its own",
                cgroup(false),
                false,
                None,
            ),
            (
                "a container in the host's network",
                cgroup(false),
                true,
                Some(
                    "the host's own sockets reach the services only from processes in /sys/fs/cgroup, which is a part of the \
                     host's control groups, as in a container: run dpd in the host's cgroup namespace (as with \
                     --cgroupns=host), or set host.services = false",
                ),
            ),
            (
                "no hierarchy",
                Err(CgroupError::NotMounted),
                false,
                Some(
                    "the host's own sockets reach no service (host.services = false accepts that), since no cgroup2 \
                     hierarchy is mounted: boot with systemd.unified_cgroup_hierarchy=1, or mkdir -p /run/cgroup2 && \
                     mount -t cgroup2 cgroup2 /run/cgroup2",
                ),
            ),
            (
                "one that can't be opened",
                Err(unusable),
                true,
                Some(
                    "the host's own sockets reach no service (host.services = false accepts that), since the cgroup2 \
                     hierarchy at /sys/fs/cgroup can't be used: permission denied",
                ),
            ),
        ];
        for (what, cgroup, is_initial, expected) in rows {
            assert_eq!(lack(&cgroup, is_initial).as_deref(), expected, "{what}");
        }
    }
}
