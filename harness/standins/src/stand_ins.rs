//! Libraries in place of those of a card.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::{STRICT, compile, folder, kernel_text, name_of, read, sources, write};

/// Candle's kernel sources that have a host build. Sorting has none: its shared memory has its size from the launch.
const CANDLE: [&str; 9] = ["affine", "unary", "binary", "ternary", "fill", "indexing", "reduce", "cast", "conv"];

/// Stand-ins for the driver, cuBLAS and cuRAND, and host builds of the kernels.
pub struct StandIns {
    libraries: PathBuf,
    kernels: Vec<PathBuf>,
}

impl StandIns {
    /// Builds what is not built yet. `candle_kernels` is the source folder of the crate `candle-kernels`; `own` are the
    /// project's kernel sources.
    ///
    /// # Errors
    /// What the compiler says.
    pub fn build(candle_kernels: &Path, own: &[PathBuf]) -> Result<Self, String> {
        let cpp = sources();
        let texts = ["host.h", "host.cpp", "candle.h", "driver.cpp", "products.cpp", "random.cpp"]
            .into_iter()
            .map(|file| read(&cpp.join(file)))
            .chain(own.iter().map(|path| kernel_text(path)))
            .collect::<Result<Vec<_>, _>>()?;
        let parts = texts.iter().map(String::as_str).chain([candle_kernels.to_str().unwrap_or_default()]);
        let folder = folder(&name_of(parts))?;
        let libraries = folder.join("lib");
        std::fs::create_dir_all(&libraries).map_err(|e| format!("{}: {e}", libraries.display()))?;
        for (source, name) in
            [("driver", "libcuda.so.1"), ("products", "libcublas.so.13"), ("random", "libcurand.so.10")]
        {
            let map = folder.join(format!("{name}.map"));
            write(&map, &format!("{name} {{ global: *; }};\n"))?;
            let mut args =
                vec!["-O2".to_owned(), "-shared".into(), cpp.join(format!("{source}.cpp")).display().to_string()];
            args.extend(STRICT.map(String::from));
            args.extend(["-ldl".into(), format!("-Wl,-soname,{name}")]);
            if source != "driver" {
                args.push(format!("-Wl,--version-script={}", map.display())); // their symbols have versions
            }
            compile(&libraries.join(name), args)?;
        }
        let empty = folder.join("empty.cpp");
        write(&empty, "")?;
        for name in ["libcublasLt.so.13", "libnvrtc.so.13"] {
            compile(&libraries.join(name), ["-shared", &empty.display().to_string(), &format!("-Wl,-soname,{name}")])?;
        }
        let kernels = host_kernels(&folder, candle_kernels, own)?;
        Ok(Self { libraries, kernels })
    }

    /// Lets `command` run over the stand-ins; `toolkit` is the folder of the toolkit's own libraries. What it asked of the
    /// driver is added to `log`, one count a line.
    pub fn equip(&self, command: &mut Command, toolkit: Option<&Path>, log: Option<&Path>) {
        let mut paths = vec![self.libraries.clone()];
        paths.extend(toolkit.map(Path::to_owned));
        let paths: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
        let kernels: Vec<String> = self.kernels.iter().map(|p| p.display().to_string()).collect();
        command.env("LD_LIBRARY_PATH", paths.join(":")).env("STANDIN_KERNELS", kernels.join(":"));
        if let Some(log) = log {
            command.env("STANDIN_LOG", log);
        }
    }
}

/// Libraries of all kernels for the host, ours first.
fn host_kernels(folder: &Path, candle_kernels: &Path, own: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let cpp = sources();
    // candle's sources include their neighbours, of which one is replaced
    let copied = folder.join("candle");
    std::fs::create_dir_all(&copied).map_err(|e| format!("{}: {e}", copied.display()))?;
    write(&copied.join("compatibility.cuh"), "#include \"candle.h\"\n")?;
    for empty in ["cuda_fp16.h", "cuda_bf16.h", "cuda_fp8.h", "cuda.h"] {
        write(&copied.join(empty), "")?;
    }
    for file in CANDLE
        .map(|name| format!("{name}.cu"))
        .iter()
        .map(String::as_str)
        .chain(["cuda_utils.cuh", "binary_op_macros.cuh"])
    {
        write(&copied.join(file), &read(&candle_kernels.join(file))?)?;
    }
    let path = |p: &Path| p.display().to_string();
    let (include, headers) = (format!("-I{}", cpp.display()), format!("-I{}", copied.display()));
    let mut objects = Vec::new();
    for name in CANDLE {
        let object = folder.join(format!("{name}.o"));
        let system = format!("-I{}", cpp.join("include").display());
        // candle's sources are as they are: no warnings, and what only nvcc takes is let through
        let args = [
            "-O1",
            "-w",
            "-fpermissive",
            "-D__CUDA_ARCH__=520",
            &headers,
            &include,
            &system,
            "-include",
            "candle.h",
            "-x",
            "c++",
            "-c",
        ];
        compile(&object, args.into_iter().map(String::from).chain([path(&copied.join(format!("{name}.cu")))]))?;
        objects.push(path(&object));
    }
    let runner = path(&cpp.join("host.cpp"));
    // functions in candle's headers are defined in every source
    let library = folder.join("libcandle.so");
    let args = ["-O2", "-shared", "-Wl,--allow-multiple-definition"].map(String::from);
    compile(&library, args.into_iter().chain(objects).chain([runner.clone()]))?;
    let mut objects = Vec::new();
    for (i, source) in own.iter().enumerate() {
        let object = folder.join(format!("own-{i}.o"));
        let args =
            ["-O1", &include, "-include", "host.h", "-x", "c++", "-c"].into_iter().chain(STRICT).map(String::from);
        compile(&object, args.chain([path(source)]))?;
        objects.push(path(&object));
    }
    let ours = folder.join("libown.so");
    let args = ["-O2", "-shared"].into_iter().chain(STRICT).map(String::from);
    compile(&ours, args.chain(objects).chain([runner]))?;
    Ok(vec![ours, library])
}
