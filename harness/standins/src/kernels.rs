//! Kernels on the host.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::build::{STRICT, compile, folder, kernel_text, name_of, read, sources, write};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

const RTLD_NOW: c_int = 2;

/// `host_launch` of `cpp/host.cpp`.
type Launch = unsafe extern "C" fn(*mut c_void, *const c_char, *mut *mut c_void, *const c_uint, c_int) -> c_int;

/// An argument of a launch.
pub enum Arg<'a> {
    /// What the kernel reads.
    In(&'a [f32]),
    /// What the kernel writes, or reads and writes.
    Out(&'a mut [f32]),
    /// Indices that the kernel reads.
    Index(&'a [u32]),
    /// Integers that the kernel writes, or reads and writes.
    Counts(&'a mut [u32]),
    /// `f64` that the kernel reads.
    WideIn(&'a [f64]),
    /// `f64` that the kernel writes, or reads and writes.
    Wide(&'a mut [f64]),
    /// Addresses of arrays.
    Table(&'a [u64]),
    /// The address of an array that lives until the launch is over.
    Address(u64),
    /// No array.
    Null,
    /// A number.
    I32(i32),
    /// A number.
    U32(u32),
    /// A number.
    F32(f32),
    /// A number.
    F64(f64),
}

/// A source of CUDA C, compiled for the host.
pub struct Kernels {
    library: *mut c_void,
    launch: Launch,
    /// Thread and block indices are variables of the library.
    one: Mutex<()>,
}

// SAFETY: the library is never unloaded, and launches go one after the other.
unsafe impl Send for Kernels {}
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Compiles a source.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn build(source: &Path) -> Result<Self, String> {
        Self::build_with(source, &[])
    }

    /// Compiles a source with pieces of its text replaced: a test sees with it that it can fail.
    ///
    /// # Errors
    /// What the compiler says, or that a piece is not there exactly once.
    pub fn build_with(source: &Path, replace: &[(&str, &str)]) -> Result<Self, String> {
        let mut text = kernel_text(source)?;
        for (from, to) in replace {
            let found = text.matches(from).count();
            if found != 1 {
                return Err(format!("{}: expected {from:?} once, found it {found} times", source.display()));
            }
            text = text.replacen(from, to, 1);
        }
        let cpp = sources();
        let (header, runner) = (read(&cpp.join("host.h"))?, read(&cpp.join("host.cpp"))?);
        // several flags in one variable, as for a compiler: `-DHOST_THREADS -fsanitize=thread`
        let flags = std::env::var("STANDIN_FLAGS").unwrap_or_default();
        let name = name_of([text.as_str(), &header, &runner, &flags]);
        let folder = folder("kernels")?;
        let library = folder.join(format!("{name}.so"));
        let copy = folder.join(format!("{name}.cpp"));
        write(&copy, &text)?;
        let path = |p: &Path| p.display().to_string();
        let mut args: Vec<String> = ["-O1", "-shared"].map(String::from).into();
        // an error on purpose may leave a variable that nothing reads
        args.extend(if replace.is_empty() { &STRICT[..] } else { &["-w"] }.iter().map(ToString::to_string));
        args.extend(["-include".into(), path(&cpp.join("host.h")), path(&copy), path(&cpp.join("host.cpp"))]);
        args.extend(flags.split_whitespace().map(String::from));
        compile(&library, args)?;
        Self::open(&library)
    }

    fn open(library: &Path) -> Result<Self, String> {
        let path = CString::new(library.display().to_string()).map_err(|e| e.to_string())?;
        // SAFETY: the path is a C string; the library was built above and runs no code when it is loaded.
        let library = unsafe { dlopen(path.as_ptr(), RTLD_NOW) };
        if library.is_null() {
            // SAFETY: after a failure it points to a C string.
            return Err(unsafe { CStr::from_ptr(dlerror()) }.to_string_lossy().into_owned());
        }
        // SAFETY: as above.
        let launch = unsafe { dlsym(library, c"host_launch".as_ptr()) };
        if launch.is_null() {
            return Err("the library has no host_launch".into());
        }
        // SAFETY: `cpp/host.cpp` defines it with this type.
        let launch = unsafe { std::mem::transmute::<*mut c_void, Launch>(launch) };
        Ok(Self { library, launch, one: Mutex::new(()) })
    }

    /// Launches the kernel `name` over `grid` blocks of `block` threads and waits for it.
    ///
    /// # Panics
    /// If there is no such kernel, or the launch does not fit.
    pub fn launch(&self, name: &str, grid: [u32; 3], block: [u32; 3], args: &mut [Arg<'_>]) {
        let _one = self.one.lock().unwrap_or_else(PoisonError::into_inner);
        let symbol = CString::new(name).expect("a name");
        // SAFETY: the library is loaded and the name a C string.
        let code = unsafe { dlsym(self.library, symbol.as_ptr()) };
        assert!(!code.is_null(), "no kernel {name}");
        let mut kinds = String::new();
        let mut values: Vec<u64> = args
            .iter_mut()
            .map(|arg| {
                let (kind, value) = match arg {
                    Arg::In(v) => ('q', v.as_ptr() as u64),
                    Arg::Out(v) => ('q', v.as_mut_ptr() as u64),
                    Arg::Index(v) => ('q', v.as_ptr() as u64),
                    Arg::Counts(v) => ('q', v.as_mut_ptr() as u64),
                    Arg::WideIn(v) => ('q', v.as_ptr() as u64),
                    Arg::Wide(v) => ('q', v.as_mut_ptr() as u64),
                    Arg::Table(v) => ('q', v.as_ptr() as u64),
                    Arg::Address(v) => ('q', *v),
                    Arg::Null => ('q', 0),
                    Arg::I32(v) => ('i', u64::from(v.cast_unsigned())),
                    Arg::U32(v) => ('i', u64::from(*v)),
                    Arg::F32(v) => ('f', u64::from(v.to_bits())),
                    Arg::F64(v) => ('d', v.to_bits()),
                };
                kinds.push(kind);
                value
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|v| std::ptr::from_mut(v).cast()).collect();
        let kinds = CString::new(kinds).expect("letters");
        let dims = [grid, block].concat();
        // SAFETY: `kinds` says what the pointers point to, and all of it lives until the launch is over. That the kernel
        // takes such arguments and stays within them is what the caller tests.
        let failed = unsafe { (self.launch)(code, kinds.as_ptr(), pointers.as_mut_ptr(), dims.as_ptr(), 1) };
        assert_eq!(failed, 0, "{name}: {grid:?} blocks of {block:?} threads with {} arguments", values.len());
    }
}
