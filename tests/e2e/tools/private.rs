//! Mount, process and control group namespaces for a tool that runs on a node.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use crate::lab::{NetnsLab, eventually, text};

/// What a tool writes to /run, /var and /mnt stays in here, and what it starts ends with this, also if the test is killed.
pub struct Private<'a> {
    lab: &'a NetnsLab,
    /// Removes all at the end of its stdin.
    supervisor: Child,
    /// The first process inside.
    init: String,
}

/// Prints the number of the first process, and `ready`.
const SUPERVISOR: &str = r#"
cgroup=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)/dpd-tool-$$
mkdir "$cgroup"
(
    echo "$BASHPID" >"$cgroup/cgroup.procs"
    exec unshare --mount --pid --cgroup --fork --kill-child --mount-proc sh -ec "$1" </dev/null
) &
until init=$(cat "/proc/$!/task/$!/children" 2>/dev/null) && [[ -n $init ]]; do
    kill -0 $! || exit
    sleep 0.01
done
echo "$init"
trap : INT TERM # a test that is killed with its group leaves nothing behind either
cat >/dev/null
kill -KILL $! && wait $! 2>/dev/null
until find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || [[ ! -e $cgroup ]]; do
    sleep 0.05
done
"#;

const SETUP: &str = "
mount --make-rprivate /
for folder in /run /var /mnt; do mount -t tmpfs tmpfs $folder; done
mkdir -p /var/tmp /run/lock
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo ready
exec sleep infinity";

/// A root file system of nothing but busybox, with a page for its web server.
const ROOT: &str = "
mkdir /mnt/root && cd /mnt/root
mkdir bin etc usr proc sys dev tmp run www
cp /usr/bin/busybox bin/
for name in sh httpd ip timeout; do ln -s busybox bin/$name; done
echo ID=test >etc/os-release
echo container >www/index.html";

impl<'a> Private<'a> {
    /// On the node of this view.
    pub fn new(lab: &'a NetnsLab) -> Private<'a> {
        let mut command = lab.command(lab.node(), "bash");
        let command = command
            .args(["-c", SUPERVISOR, "supervisor", SETUP])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut supervisor = command.spawn().expect("run bash");
        let stdout = supervisor.stdout.take().expect("a pipe");
        let lines = BufReader::new(stdout).lines().take(2);
        let mut lines: Vec<String> = lines.map(|line| line.expect("a line")).collect();
        lines.retain(|line| line != "ready");
        let init = lines.pop().expect("its first process").trim().to_owned();
        assert!(lines.is_empty(), "the namespaces are set up");
        Private {
            lab,
            supervisor,
            init,
        }
    }

    /// The same, with a root file system for a container in /mnt/root.
    pub fn with_root(lab: &'a NetnsLab) -> Private<'a> {
        let private = Private::new(lab);
        private.ok(ROOT);
        private
    }

    /// Runs a shell command inside; it must succeed. Returns its stdout.
    pub fn ok(&self, line: &str) -> String {
        self.run(line).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same; the error is all that it has printed.
    pub fn run(&self, line: &str) -> Result<String, String> {
        let mut command = self.lab.command(self.lab.node(), "nsenter");
        let output = command
            .args(["--mount", "--pid", "--cgroup", "--target", &self.init])
            .args(["--", "sh", "-ec", line])
            .output()
            .expect("run nsenter");
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{line}: {}", text(&output))),
        }
    }

    /// Starts a program inside that ends with it. Its output is in /mnt/log.
    pub fn spawn(&self, line: &str) {
        // It is in the control group as well, in which it may make others.
        self.ok(&format!(
            "echo $$ >/sys/fs/cgroup/cgroup.procs; {line} </dev/null >/mnt/log 2>&1 &"
        ));
    }

    /// Repeats a command until it succeeds.
    pub fn eventually(&self, what: &str, line: &str) -> String {
        eventually(what, || self.run(line))
    }
}

impl Drop for Private<'_> {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}
