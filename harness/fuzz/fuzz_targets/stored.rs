//! Files of a run directory: a byte that says which and whether it is to end in its own digest, then the text of a plan, a status or a
//! position.
#![no_main]

use std::fs;

use harness_fuzz::{scratch, with_file};
use libfuzzer_sys::fuzz_target;
use suite::parts::{CellDir, Plan, load_checkpoint};

/// The text with the digest that the program would have given it.
fn sealed(text: &[u8]) -> Vec<u8> {
    let body = text.strip_suffix(b"\n}\n").unwrap_or(text);
    let sum = data::files::sha256_hex(&[body, b"\n}\n"].concat());
    [body, b",\n  \"digest\": \"", sum.as_bytes(), b"\"\n}\n"].concat()
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, text)) = data.split_first() else { return };
    let bytes = if choice & 4 == 0 { sealed(text) } else { text.to_vec() };
    match choice % 4 {
        0 => {
            let Ok(plan) = with_file(&bytes, Plan::read) else { return };
            assert_eq!(plan.names().len(), plan.cells.len());
            let run = scratch("run");
            // what is refused is refused with a reason
            if plan.write(&run, false).is_ok() {
                let again = Plan::read(&run.join("plan.json")).expect("it was just written");
                assert_eq!(again.cells.len(), plan.cells.len());
            }
            fs::remove_dir_all(&run).expect("it can be removed");
        }
        1 | 2 => {
            let run = scratch("run");
            let cell = CellDir::open(&run, "0123456789abcdef").expect("a folder");
            if choice % 4 == 1 {
                fs::write(cell.path.join("status.json"), &bytes).expect("a file");
                let _ = (cell.status(), cell.checked_status());
            } else {
                let checkpoint = cell.path.join("checkpoint");
                fs::create_dir(&checkpoint).expect("a folder");
                fs::write(checkpoint.join("position.json"), &bytes).expect("a file");
                let _ = load_checkpoint(&checkpoint);
            }
            fs::remove_dir_all(&run).expect("it can be removed");
        }
        _ => {}
    }
});
