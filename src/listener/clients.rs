//! A limited table of clients. At the limit a new one takes the place of the one for which the server has waited longest.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::Shutdown;

/// A connection. While the server waits for it (for its request, or for it to read), it may be closed for a new one;
/// while it is served, it may not.
pub struct Client<S> {
    stream: S,
    /// From when on it may be closed for a new one; `None` while the server does not wait for it.
    expendable: Mutex<Option<Instant>>,
}

impl<S: AsFd> Client<S> {
    /// A client for which the server does not wait yet.
    pub fn new(stream: S) -> Arc<Client<S>> {
        Arc::new(Client {
            stream,
            expendable: Mutex::default(),
        })
    }

    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// The server waits for the client from now on: it may be closed for a new one once `patience` is over.
    pub fn wait(&self, patience: Duration) {
        self.set(Some(Instant::now() + patience));
    }

    /// The client has done its part: it is not closed for a new one.
    pub fn hold(&self) {
        self.set(None);
    }

    fn set(&self, expendable: Option<Instant>) {
        *lock(&self.expendable) = expendable;
    }

    fn expendable(&self) -> Option<Instant> {
        lock(&self.expendable).filter(|from| *from <= Instant::now())
    }

    /// Ends the connection; a thread that reads or writes returns.
    pub(super) fn close(&self) {
        // It may be closed already.
        let _ = rustix::net::shutdown(&self.stream, Shutdown::Both);
    }
}

/// The clients at once, up to a limit.
pub struct Clients<S> {
    open: Mutex<Open<S>>,
    limit: usize,
}

struct Open<S> {
    clients: BTreeMap<u64, Arc<Client<S>>>,
    next: u64,
}

impl<S: AsFd> Clients<S> {
    pub fn new(limit: usize) -> Arc<Clients<S>> {
        let open = Open {
            clients: BTreeMap::new(),
            next: 0,
        };
        Arc::new(Clients {
            open: Mutex::new(open),
            limit,
        })
    }

    /// Adds a client. At the limit, the one for which the server has waited longest is closed; `None` if it waits for none.
    pub fn add(self: &Arc<Self>, client: &Arc<Client<S>>) -> Option<ClientSlot<S>> {
        let mut open = lock(&self.open);
        if open.clients.len() >= self.limit {
            let expendable =
                |(id, client): (&u64, &Arc<Client<S>>)| client.expendable().map(|from| (from, *id));
            let (_, longest) = open.clients.iter().filter_map(expendable).min()?;
            if let Some(client) = open.clients.remove(&longest) {
                client.close();
            }
        }
        let id = open.next;
        open.next += 1;
        open.clients.insert(id, client.clone());
        Some(ClientSlot {
            id,
            clients: self.clone(),
        })
    }

    pub(super) fn all(&self) -> Vec<Arc<Client<S>>> {
        lock(&self.open).clients.values().cloned().collect()
    }
}

/// One of the places below the limit; free again when dropped, also by a panic of the client's thread.
pub struct ClientSlot<S> {
    id: u64,
    clients: Arc<Clients<S>>,
}

impl<S> Drop for ClientSlot<S> {
    fn drop(&mut self) {
        // It is not there if another client has its place.
        lock(&self.clients.open).clients.remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_client_that_is_waited_for_longest_makes_room() {
        let clients = Clients::new(3);
        let pair = || {
            let (near, far) = UnixStream::pair().unwrap();
            far.set_nonblocking(true).unwrap();
            (Client::new(near), far)
        };
        let is_closed = |mut far: &UnixStream| matches!(far.read(&mut [0]), Ok(0));
        let (served, served_far) = pair();
        let (patient, patient_far) = pair();
        let (silent, silent_far) = pair();
        let slots = [&served, &patient, &silent].map(|client| clients.add(client).unwrap());
        let (new, _new_far) = pair();
        assert!(clients.add(&new).is_none(), "the server waits for none");

        patient.wait(Duration::from_secs(1000));
        assert!(clients.add(&new).is_none(), "its time is not over");
        silent.wait(Duration::ZERO);
        let _slot = clients.add(&new).expect("the silent one makes room");
        assert!(is_closed(&silent_far));
        let (next, _next_far) = pair();
        assert!(clients.add(&next).is_none());

        new.wait(Duration::ZERO);
        patient.wait(Duration::ZERO);
        let _next_slot = clients.add(&next).expect("one of the two makes room");
        assert!(!is_closed(&patient_far), "the new one has waited longer");
        assert!(!is_closed(&served_far));
        patient.hold();
        let (last, _last_far) = pair();
        assert!(clients.add(&last).is_none(), "it has read, and stays");
        drop(slots);
        assert_eq!(clients.all().len(), 1, "one place of those is taken");
        assert!(clients.add(&last).is_some());
    }
}
