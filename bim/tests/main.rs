//! Tests of the whole learner and its gradients, in one binary: it links once.
//!
//! | module | what it proves |
//! |---|---|
//! | [`twin`] | nothing: the network from its equations, which the others hold the implementation against |
//! | [`neuron`] | the neuron and its surrogate, number by number |
//! | [`rtrl_equals_bptt`] | chunked online credit is backpropagation through time, for every form of the block |
//! | [`production_sizes`] | the same where register tiles are whole, partial and many, with all that a run may switch on |
//! | [`learning`] | one update by eq. 4: directions, λ, Ω, bounds, masks, clipping, weight decay |
//! | [`pairs`] | STDP against the double sum over pairs of spikes, streams and resets |
//! | [`evaluation`] | evaluating by segments is evaluating at once |
//! | [`events`] | products from events are dense ones, to rounding |
//! | [`cuda_kernels`] | the CUDA kernels, compiled for the host, against their twins |
//! | [`carried`] | histories, rest and copies of what goes from chunk to chunk |
//! | [`faults`] | faults that an audit found stay mended |
//! | [`start`] | what a network starts from, what it refuses, what it costs |
//! | [`long_range`] | traces learn what truncated credit cannot |
//!
//! `tests/README.md` lists deliberate errors and the test that catches each.

mod carried;
mod common;
mod cuda_kernels;
mod evaluation;
mod events;
mod faults;
mod learning;
mod long_range;
mod neuron;
mod pairs;
mod production_sizes;
mod rtrl_equals_bptt;
mod start;
mod twin;

/// Files here are modules of this binary: one that is not named above would never run.
#[test]
fn every_file_here_is_a_module() {
    // asked when it runs, not when it is compiled: another checkout may have compiled it into a shared target folder
    let package = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    let dir = std::path::Path::new(&package).join("tests");
    for (folder, owner, source) in [
        (dir.clone(), "main.rs", include_str!("main.rs")),
        (dir.join("cuda_kernels"), "cuda_kernels.rs", include_str!("cuda_kernels.rs")),
    ] {
        for entry in std::fs::read_dir(folder).expect("the folder of the modules") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("main.rs") {
                let stem = path.file_stem().and_then(|s| s.to_str()).expect("a name");
                assert!(source.contains(&format!("\nmod {stem};")), "tests/{owner} does not name {stem}");
            }
        }
    }
}
