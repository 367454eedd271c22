//! The programs by which services answer the host's own sockets.

use std::os::fd::AsFd;

use crate::bpf::attach::socket;
use crate::bpf::reader::Reader;
use crate::model::status::SocketAttachment;
use crate::net;

/// Those that are attached, with the path of their cgroup where it is the one that this process sees.
pub(super) fn attached(reader: &Reader) -> Vec<SocketAttachment> {
    let mut attached = reader.socket_attachments();
    let seen = net::find_cgroup().ok();
    let seen =
        seen.and_then(|seen| Some((socket::cgroup_id(seen.folder.as_fd()).ok()?, seen.path)));
    for program in &mut attached {
        let path = seen.as_ref().filter(|(id, _)| *id == program.cgroup_id);
        program.cgroup = path.map(|(_, path)| path.display().to_string());
    }
    attached
}

/// `services answer the host's own, by 8 programs at /sys/fs/cgroup`; `None`: there are no programs.
pub(super) fn text(attached: &[SocketAttachment]) -> Option<String> {
    let first = attached.first()?;
    let at = match &first.cgroup {
        Some(path) => path.clone(),
        None => format!("the cgroup with the number {}", first.cgroup_id),
    };
    let count = attached.len();
    let noun = if count == 1 { "program" } else { "programs" };
    Some(format!(
        "services answer the host's own, by {count} {noun} at {at}"
    ))
}
