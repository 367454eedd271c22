//! The gate that every operation on the kernel's objects passes. Its error names the operation, and the remedy where the
//! errno has one. A test may make any operation fail here, to see what a failure leaves behind.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Error, Result};
use rustix::io::Errno;

use super::capabilities;
use super::op::Op;

/// Sees each operation before it is done; an error of it becomes the operation's.
pub type FaultInjector = Arc<dyn Fn(&Op<'_>) -> io::Result<()> + Send + Sync>;

thread_local! {
    static PROGRESS: RefCell<Option<Arc<AtomicU64>>> = const { RefCell::new(None) };
    static INJECTOR: RefCell<Option<FaultInjector>> = const { RefCell::new(None) };
}

/// Does an operation.
pub(in crate::bpf) fn call<T, E: Into<Error>>(
    op: Op<'_>,
    operation: impl FnOnce() -> Result<T, E>,
) -> Result<T> {
    PROGRESS.with_borrow(|progress| {
        if let Some(progress) = progress {
            progress.fetch_add(1, Ordering::Relaxed);
        }
    });
    let allowed = match injector() {
        Some(injector) => injector(&op),
        None => Ok(()),
    };
    allowed
        .map_err(Error::new)
        .and_then(|()| operation().map_err(Into::into))
        .map_err(|error| match remedy(&op, &error) {
            Some(remedy) => error.context(format!("{op} ({remedy})")),
            None => error.context(op.to_string()),
        })
}

/// What to do about an errno whose text does not say it.
fn remedy(op: &Op<'_>, error: &Error) -> Option<Cow<'static, str>> {
    let remedy = match errno(error)? {
        Errno::NOMEM => {
            "the kernel gives dpd no more memory: raise MemoryMax= of its unit, or ask for less, as with a smaller \
             conntrack.size"
        }
        Errno::TOOBIG => {
            "that is more than the kernel can hold in one table: ask for less, as with a smaller conntrack.size"
        }
        Errno::ROFS => "make the bpffs writable, as with `mount -o remount,rw /sys/fs/bpf`",
        // Of the file's mode.
        Errno::ACCESS if matches!(op, Op::OpenMap { .. }) => {
            "run it as root, or as a member of the group that owns the file"
        }
        Errno::ACCESS if op.is_of_a_directory() => {
            "run it as root, or as the user that owns the directory"
        }
        // By the verifier, which refuses with ACCES what needs a capability, too.
        Errno::ACCESS if *op == Op::LoadPrograms && capabilities::missing().is_empty() => {
            "the kernel's verifier, or a security module, refuses them"
        }
        Errno::PERM | Errno::ACCESS => return Some(capabilities::remedy().into()),
        _ => return None,
    };
    Some(remedy.into())
}

/// From the text of the innermost error, which messages of libbpf may follow: libbpf_rs does not expose the number.
pub(in crate::bpf) fn errno(error: &Error) -> Option<Errno> {
    let text = error.root_cause().to_string();
    let number = text.split_once("(os error ")?.1.split_once(')')?.0;
    Some(Errno::from_raw_os_error(number.parse().ok()?))
}

fn injector() -> Option<FaultInjector> {
    INJECTOR.with_borrow(Clone::clone)
}

/// Counts the operations of this thread, and of those that it starts for them: it makes progress while that increases.
pub fn count_operations(progress: Arc<AtomicU64>) {
    PROGRESS.set(Some(progress));
}

/// Makes the thread that does the job use this thread's injector and count.
pub(in crate::bpf) fn inherit_context<T>(job: impl FnOnce() -> T) -> impl FnOnce() -> T {
    let injector = injector();
    let progress = PROGRESS.with_borrow(Clone::clone);
    move || {
        INJECTOR.set(injector);
        PROGRESS.set(progress);
        job()
    }
}

/// Calls the injector for each operation of this thread, and of those that it starts, until the guard is dropped.
pub fn inject_faults(injector: FaultInjector) -> FaultGuard {
    INJECTOR.set(Some(injector));
    FaultGuard(())
}

/// Removes the injector when it is dropped.
#[derive(Debug)]
pub struct FaultGuard(());

impl Drop for FaultGuard {
    fn drop(&mut self) {
        INJECTOR.set(None);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use super::*;

    fn fail(errno: Errno) -> Result<()> {
        let path = Path::new("/sys/fs/bpf/x");
        call(Op::Pin { path }, || Err::<(), _>(io::Error::from(errno)))
    }

    #[test]
    fn an_error_begins_with_the_operation_and_names_the_remedy() {
        let rows = [
            ("no memory", Errno::NOMEM, "MemoryMax="),
            ("too many rows", Errno::TOOBIG, "conntrack.size"),
            ("read-only", Errno::ROFS, "mount -o remount,rw"),
            ("no remedy needed", Errno::NODEV, "No such device"),
        ];
        for (what, errno, words) in rows {
            let error = format!("{:#}", fail(errno).unwrap_err());
            assert!(error.starts_with("pin at /sys/fs/bpf/x"), "{what}: {error}");
            assert!(error.contains(words), "{what}: {error}");
        }
    }

    #[test]
    fn what_a_mode_denies_is_not_blamed_on_capabilities() {
        let path = Path::new("/sys/fs/bpf/x");
        let rows = [
            (Op::RemoveDir { path }, "the user that owns the directory"),
            (Op::Pin { path }, "the user that owns the directory"),
            (Op::OpenMap { path }, "the group that owns the file"),
        ];
        for (op, words) in rows {
            let refused = call(op, || Err::<(), _>(io::Error::from(Errno::ACCESS)));
            let error = format!("{:#}", refused.unwrap_err());
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("capabilities"), "{error}");
        }
    }

    #[test]
    fn an_injector_sees_each_operation_of_its_threads_and_may_fail_it() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let note = seen.clone();
        let guard = inject_faults(Arc::new(move |op| {
            note.lock().unwrap().push(op.to_string());
            match op {
                Op::CreateQdisc => Err(Errno::NOMEM.into()),
                _ => Ok(()),
            }
        }));
        let operation = |op: Op<'_>| call(op, || io::Result::Ok(7));
        assert_eq!(operation(Op::LoadPrograms).unwrap(), 7);
        std::thread::scope(|scope| {
            scope.spawn(inherit_context(|| operation(Op::CreateQdisc).unwrap_err()));
            scope.spawn(|| operation(Op::DeleteQdisc).unwrap());
        });
        drop(guard);
        assert_eq!(operation(Op::CreateQdisc).unwrap(), 7, "the guard is gone");
        let expected = [Op::LoadPrograms, Op::CreateQdisc].map(|op| op.to_string());
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
