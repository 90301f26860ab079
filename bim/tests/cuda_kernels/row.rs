use bim::kernels::row;
use standins::{Arg, FORWARD, GRADIENT, close, drawn, prove};

use super::{scaled, size, source, spread};

#[test]
fn cuda_kernels_row() {
    let errors = [
        ("/ float(width) + epsilon)", "/ float(width))"),
        ("dx[row + i] += (dy[row + i]", "dx[row + i] = (dy[row + i]"),
        ("out[i] += y[i] * z[i] / (1.0f + expf(-z[i]));", "out[i] += y[i] / (1.0f + expf(-z[i]));"),
        ("(1.0f + z[i] * (1.0f - sigma))", "(1.0f + z[i] * sigma)"),
        ("parts[threadIdx.x + by]);\n    __syncthreads();", "parts[threadIdx.x + by]);"),
    ];
    prove(&source("row.cu"), &errors, |kernels| {
        for (rows, width) in [(3, 48), (1, 192), (5, 768), (2, 7), (2, 1)] {
            // values so small that the epsilon has a say
            let (x, dy) = (scaled(&drawn(1, rows * width), 3e-3), drawn(2, rows * width));
            let (mut y, mut inverse) = (vec![0.0; rows * width], vec![0.0; rows]);
            row::normalize(width, &x, &mut y, &mut inverse);
            let (mut got, mut got_inverse) = (vec![f32::NAN; rows * width], vec![f32::NAN; rows]);
            let epsilon = row::NORM_EPSILON as f32;
            let (grid, block) = ([rows as u32, 1, 1], [64, 1, 1]);
            let mut args =
                [size(width), Arg::F32(epsilon), Arg::In(&x), Arg::Out(&mut got), Arg::Out(&mut got_inverse)];
            kernels.launch("normalize", grid, block, &mut args);
            close(&format!("norm of {rows} x {width}"), &got, &y, FORWARD)?;
            close("one over the root mean square", &got_inverse, &inverse, FORWARD)?;
            let mut dx = drawn(3, rows * width);
            let mut got = dx.clone();
            row::normalize_reverse(width, &y, &inverse, &dy, &mut dx);
            let mut args = [size(width), Arg::In(&y), Arg::In(&inverse), Arg::In(&dy), Arg::Out(&mut got)];
            kernels.launch("normalize_reverse", grid, block, &mut args);
            close(&format!("gradient of the norm of {rows} x {width}"), &got, &dx, GRADIENT)?;
            let n = rows * width;
            let (y, z, d_out) = (drawn(4, n), scaled(&drawn(5, n), 4.0), drawn(6, n));
            let mut out = drawn(7, n);
            let mut got = out.clone();
            row::gate(&y, &z, &mut out);
            let (grid, block) = spread(n);
            kernels.launch("gate", grid, block, &mut [size(n), Arg::In(&y), Arg::In(&z), Arg::Out(&mut got)]);
            close(&format!("gate of {n}"), &got, &out, FORWARD)?;
            let (mut dy, mut dz) = (vec![0.0; n], vec![0.0; n]);
            row::gate_reverse(&y, &z, &d_out, &mut dy, &mut dz);
            let (mut got_y, mut got_z) = (vec![f32::NAN; n], vec![f32::NAN; n]);
            let mut args =
                [size(n), Arg::In(&y), Arg::In(&z), Arg::In(&d_out), Arg::Out(&mut got_y), Arg::Out(&mut got_z)];
            kernels.launch("gate_reverse", grid, block, &mut args);
            close("gradient of what is gated", &got_y, &dy, GRADIENT)?;
            close("gradient of the gate", &got_z, &dz, GRADIENT)?;
        }
        Ok(())
    });
}
