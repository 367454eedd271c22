//! The gate that every operation on the kernel's objects passes. It gives the error its sentence, and the way out where
//! the kernel's answer tells one; and a test may close it at any operation, to see what the kernel's no leaves behind.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::sync::Arc;

use anyhow::{Error, Result};
use rustix::io::Errno;

/// Hears of each operation before it is done; its error becomes the operation's.
pub type Keeper = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

thread_local! {
    static KEEPER: RefCell<Option<Keeper>> = const { RefCell::new(None) };
}

/// Does an operation. `what` says which in the words that its error begins with: a verb, a noun, which one.
pub(super) fn pass<T, E: Into<Error>>(
    what: fmt::Arguments<'_>,
    operation: impl FnOnce() -> Result<T, E>,
) -> Result<T> {
    let allowed = match keeper() {
        Some(keeper) => keeper(&what.to_string()),
        None => Ok(()),
    };
    allowed
        .map_err(Error::new)
        .and_then(|()| operation().map_err(Into::into))
        .map_err(|error| match way_out(&error) {
            Some(way_out) => error.context(format!("{what} ({way_out})")),
            None => error.context(what.to_string()),
        })
}

/// What to do about an answer of the kernel's that does not speak for itself.
fn way_out(error: &Error) -> Option<&'static str> {
    match errno(error)? {
        Errno::NOMEM => Some(
            "the kernel gives dpd no more memory: raise MemoryMax= of its unit, or ask for less, as with a smaller \
             conntrack.size",
        ),
        Errno::TOOBIG => Some(
            "that is more than the kernel can hold in one table: ask for less, as with a smaller conntrack.size",
        ),
        Errno::ROFS => Some("make the bpffs writable, as with `mount -o remount,rw /sys/fs/bpf`"),
        _ => None,
    }
}

/// By the words of the innermost error: libbpf_rs keeps the number to itself.
fn errno(error: &Error) -> Option<Errno> {
    let words = error.root_cause().to_string();
    let number = words.rsplit_once("(os error ")?.1.strip_suffix(')')?;
    Some(Errno::from_raw_os_error(number.parse().ok()?))
}

fn keeper() -> Option<Keeper> {
    KEEPER.with_borrow(Clone::clone)
}

/// Takes this thread's keeper along to the thread that does the job.
pub(super) fn carried<T>(job: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let keeper = keeper();
    move || {
        KEEPER.set(keeper);
        job()
    }
}

/// Puts a keeper at the gate of this thread, and of those that it starts, for as long as the answer lives.
pub fn keep(keeper: Keeper) -> Kept {
    KEEPER.set(Some(keeper));
    Kept(())
}

/// The gate is open again when this is dropped.
#[derive(Debug)]
pub struct Kept(());

impl Drop for Kept {
    fn drop(&mut self) {
        KEEPER.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn fail(errno: Errno) -> Result<()> {
        pass(format_args!("pin at /sys/fs/bpf/x"), || {
            Err::<(), _>(io::Error::from(errno))
        })
    }

    #[test]
    fn an_error_begins_with_the_operation_and_says_the_way_out() {
        let rows = [
            ("no memory", Errno::NOMEM, "MemoryMax="),
            ("too many rows", Errno::TOOBIG, "conntrack.size"),
            ("read-only", Errno::ROFS, "mount -o remount,rw"),
            ("what speaks for itself", Errno::NODEV, "No such device"),
        ];
        for (what, errno, words) in rows {
            let error = format!("{:#}", fail(errno).unwrap_err());
            assert!(error.starts_with("pin at /sys/fs/bpf/x"), "{what}: {error}");
            assert!(error.contains(words), "{what}: {error}");
        }
    }

    #[test]
    fn a_keeper_hears_of_each_operation_on_its_threads_and_may_refuse_it() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let note = heard.clone();
        let kept = keep(Arc::new(move |what| {
            note.lock().unwrap().push(what.to_owned());
            match what {
                "refused" => Err(Errno::NOMEM.into()),
                _ => Ok(()),
            }
        }));
        let operation = |name: &str| pass(format_args!("{name}"), || io::Result::Ok(7));
        assert_eq!(operation("allowed").unwrap(), 7);
        std::thread::scope(|scope| {
            scope.spawn(carried(|| operation("refused").unwrap_err()));
            scope.spawn(|| operation("another thread's").unwrap());
        });
        drop(kept);
        assert_eq!(operation("refused").unwrap(), 7, "the gate is open again");
        assert_eq!(*heard.lock().unwrap(), ["allowed", "refused"]);
    }
}
