//! Times loading: `load FILE [threads] [rounds]`. Of each round the seconds to open the file, to bring its weights to the
//! device, and both.

use checkpoint::{Checkpoint, OpenOptions};
use compute::cpu::{CpuDevice, CpuOptions};
use model::{Decoder, LoadOptions};
use std::{error::Error, io::Write, ops::ControlFlow, path::Path, sync::Arc, time::Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let path = args.next().ok_or("which file?")?;
    let threads = args.next().map(|n| n.parse()).transpose()?;
    let rounds = args.next().map_or(Ok(3), |n| n.parse())?;
    let mut out = std::io::stdout();
    for _ in 0..rounds {
        let begin = Instant::now();
        let checkpoint = Checkpoint::open(Path::new(&path), &OpenOptions { mmap: true, ..OpenOptions::default() })?;
        let opened = begin.elapsed().as_secs_f64();
        let device = Arc::new(CpuDevice::new(CpuOptions { threads, ..CpuOptions::default() })?);
        let options = LoadOptions { context_length: Some(512), ..LoadOptions::default() };
        let decoder = Decoder::load(&checkpoint, device, &options, &mut |_| ControlFlow::Continue(()))?;
        let all = begin.elapsed().as_secs_f64();
        let bytes = decoder.memory().weights_bytes;
        writeln!(out, "open {opened:.3}, weights {:.3}, all {all:.3} s; {bytes} bytes", all - opened)?;
    }
    Ok(())
}
