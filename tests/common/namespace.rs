//! A network namespace that lives as long as its value, and ends with the test program however that ends.
//!
//! A child process holds it open, waiting for a pipe that the kernel closes with us: there is no name that a killed
//! test could leave behind.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub struct Namespace {
    holder: Child,
    handle: File,
}

impl Namespace {
    /// A new one with its loopback up. Needs root.
    pub fn new() -> Namespace {
        let mut holder = Command::new("unshare")
            .args([
                "--net",
                "--",
                "sh",
                "-c",
                "ip link set lo up && echo ready && exec cat",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare (of the package util-linux)");
        let mut line = String::new();
        let output = holder
            .stdout
            .as_mut()
            .expect("the holder's output is a pipe");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("read from the namespace's holder");
        if line != "ready\n" {
            let _ = holder.wait();
            panic!(
                "can't make a network namespace: this test needs root, and ip of the package iproute2"
            );
        }
        let path = format!("/proc/{}/ns/net", holder.id());
        let handle = File::open(&path).unwrap_or_else(|error| panic!("open {path}: {error}"));
        Namespace { holder, handle }
    }

    /// The holder's process, by which `ip link … netns PID` names the namespace.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A handle by which a thread can enter it.
    pub fn handle(&self) -> File {
        self.handle
            .try_clone()
            .expect("copy the namespace's handle")
    }

    /// Runs `job` in the namespace, on a thread of its own.
    pub fn run<R: Send>(&self, job: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let job = scope.spawn(|| {
                move_into_link_name_space(
                    std::os::fd::AsFd::as_fd(&self.handle),
                    Some(LinkNameSpaceType::Network),
                )
                .expect("enter the network namespace");
                job()
            });
            job.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` with these words; they must work.
    pub fn ip(&self, words: &str) {
        self.command("ip", words);
    }

    /// Sets a key of the namespace, as `net.ipv4.ip_forward=1`.
    pub fn sysctl(&self, setting: &str) {
        self.command("sysctl", &format!("-qw {setting}"));
    }

    fn command(&self, program: &str, words: &str) {
        self.output(program, words);
    }

    /// Runs a program with these words, which must work, and gives what it prints.
    pub fn output(&self, program: &str, words: &str) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.pid()))
            .arg(program)
            .args(words.split_whitespace())
            .output()
            .unwrap_or_else(|error| panic!("start nsenter {program}: {error}"));
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {words}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        // It has ended already where that fails.
        let _ = self.holder.wait();
    }
}
