//! BTF of the kernel's maps and of an object: the layouts of the records in maps.

use std::ffi::CStr;
use std::ptr::NonNull;

use anyhow::{Context, Result, bail};
use libbpf_rs::libbpf_sys;

use super::record_layout::{Layout, Member};

/// `BTF_KIND_*` (include/uapi/linux/btf.h)
const INT: u32 = 1;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const ENUM64: u32 = 19;

/// Nested structs; deeper than that is a cycle.
const MAX_DEPTH: usize = 16;

/// The types of a map or an object.
#[derive(Debug)]
pub struct Btf(NonNull<libbpf_sys::btf>);

impl Drop for Btf {
    fn drop(&mut self) {
        // SAFETY: the pointer is ours alone, and nothing that it leads to outlives us.
        unsafe { libbpf_sys::btf__free(self.0.as_ptr()) };
    }
}

/// One type, and what follows it.
struct Type<'a> {
    raw: &'a libbpf_sys::btf_type,
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        (self.raw.info >> 24) & 0x1f
    }

    fn length(&self) -> usize {
        (self.raw.info & 0xffff) as usize
    }

    fn size(&self) -> usize {
        // SAFETY: both arms of the union are a __u32.
        unsafe { self.raw.__bindgen_anon_1.size as usize }
    }

    fn next(&self) -> u32 {
        // SAFETY: as above.
        unsafe { self.raw.__bindgen_anon_1.type_ }
    }

    /// What follows the type; what that is depends on the kind.
    fn trailing<T>(&self) -> *const T {
        std::ptr::from_ref(self.raw).wrapping_add(1).cast()
    }
}

impl Btf {
    /// The types that the kernel has under an id, as in `bpf_map_info`.
    pub fn of_kernel(id: u32) -> Result<Btf> {
        // SAFETY: no pointers go in; what comes out is checked and ours to free.
        let btf = unsafe { libbpf_sys::btf__load_from_kernel_by_id(id) };
        let error = std::io::Error::last_os_error();
        let btf = NonNull::new(btf).ok_or(error);
        btf.map(Btf)
            .with_context(|| format!("load BTF {id} from the kernel"))
    }

    /// The types of an object file.
    pub fn of_object(object: &[u8]) -> Result<Btf> {
        // libbpf parses types alone only from a file.
        use std::io::Write;
        use std::os::fd::AsRawFd;
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file =
            rustix::fs::memfd_create("dpd.o", flags).context("create a file for the object")?;
        let mut file = std::fs::File::from(file);
        file.write_all(object).context("write the object")?;
        let path = format!("/proc/self/fd/{}\0", file.as_raw_fd());
        // SAFETY: the path ends in a zero byte and lives for the whole call; the second result is not asked for.
        let btf = unsafe { libbpf_sys::btf__parse_elf(path.as_ptr().cast(), std::ptr::null_mut()) };
        let error = std::io::Error::last_os_error();
        let btf = NonNull::new(btf).ok_or(error);
        btf.map(Btf).context("read the types of the object")
    }

    fn find(&self, id: u32) -> Result<Type<'_>> {
        // SAFETY: the types live as long as `self`; an unknown id gives a null pointer.
        let raw = unsafe { libbpf_sys::btf__type_by_id(self.0.as_ptr(), id).as_ref() };
        let raw = raw.with_context(|| format!("type {id} is missing"))?;
        Ok(Type { raw })
    }

    fn name(&self, offset: u32) -> String {
        // SAFETY: the string belongs to the types, which outlive this call, and ends in a zero byte.
        let name = unsafe {
            let name = libbpf_sys::btf__name_by_offset(self.0.as_ptr(), offset);
            (!name.is_null()).then(|| CStr::from_ptr(name))
        };
        name.map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// The layout of a type.
    ///
    /// # Errors
    /// If it has members other than integers, structs and arrays.
    pub fn layout(&self, id: u32) -> Result<Layout> {
        let mut layout = Layout::default();
        layout.size = self.walk(id, "", 0, "", &mut layout, 0)?;
        Ok(layout)
    }

    /// Adds the members of a type; returns its size. `called` is the name of its typedef.
    fn walk(
        &self,
        id: u32,
        path: &str,
        offset: usize,
        called: &str,
        layout: &mut Layout,
        depth: usize,
    ) -> Result<usize> {
        if depth > MAX_DEPTH {
            bail!("{path}: structs are nested too deep");
        }
        let of = self.find(id)?;
        let own_name = self.name(of.raw.name_off);
        let name = if called.is_empty() { &own_name } else { called };
        match of.kind() {
            TYPEDEF => self.walk(of.next(), path, offset, name, layout, depth + 1),
            VOLATILE | CONST => self.walk(of.next(), path, offset, called, layout, depth + 1),
            INT | ENUM | ENUM64 => {
                let (size, kind) = (of.size(), name.to_owned());
                layout.add(path.to_owned(), Member { offset, size, kind });
                Ok(size)
            }
            ARRAY => self.walk_array(&of, path, offset, layout, depth),
            STRUCT => {
                // SAFETY: a struct is followed by as many members as its length says.
                let members = unsafe { std::slice::from_raw_parts(of.trailing(), of.length()) };
                for member in members {
                    let libbpf_sys::btf_member {
                        name_off,
                        type_,
                        offset: bits,
                    } = *member;
                    let name = self.name(name_off);
                    let dot = if path.is_empty() { "" } else { "." };
                    let path = format!("{path}{dot}{name}");
                    let offset = offset + bits as usize / 8;
                    self.walk(type_, &path, offset, "", layout, depth + 1)?;
                }
                Ok(of.size())
            }
            kind => bail!("{path} has BTF kind {kind}, which records must not have"),
        }
    }

    /// An array of integers is one member; in an array of structs each element has members of its own.
    fn walk_array(
        &self,
        of: &Type<'_>,
        path: &str,
        offset: usize,
        layout: &mut Layout,
        depth: usize,
    ) -> Result<usize> {
        // SAFETY: an array is followed by its element type and length.
        let array: libbpf_sys::btf_array = unsafe { of.trailing::<libbpf_sys::btf_array>().read() };
        let count = array.nelems as usize;
        let mut element = Layout::default();
        element.size = self.walk(array.type_, "", 0, "", &mut element, depth + 1)?;
        if let Some(member) = element.members.get("") {
            let kind = format!("{}[{count}]", member.kind);
            let size = member.size * count;
            layout.add(path.to_owned(), Member { offset, size, kind });
            return Ok(size);
        }
        for index in 0..count {
            let path = format!("{path}[{index}]");
            let offset = offset + index * element.size;
            self.walk(array.type_, &path, offset, "", layout, depth + 1)?;
        }
        Ok(element.size * count)
    }
}
