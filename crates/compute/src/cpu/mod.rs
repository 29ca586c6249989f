//! The CPU as a device.
//!
//! What belongs here: [`CpuDevice`], what its operations share (pool, scratch, kernels), the checks at the boundary.
//! What does not: the operations themselves (`op`), inner loops (`simd`).

mod books;
mod columns;
mod kv;
mod lanes;
mod memory;
mod op;
mod pack;
mod packed;
mod pool;
mod simd;
mod states;
mod topology;
mod weight;

pub use simd::Isa;
pub use weight::weight_bytes;

use crate::{
    Attend, Buffer, DeltaRule, Device, DeviceInfo, Epilogue, Error, Experts, FeedForward, KvCache, KvSpec, LatentQkv,
    LayerInput, Logits, Norm, Precision, Projection, Qkv, Result, Rows, ShortConv, Streams, Weight, WeightUse,
};
use memory::Memory;
use op::Work;
use simd::Kernels;
use std::{
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tensor::HostTensor;

/// At most this many threads may be asked for.
const MAX_THREADS: usize = 1024;

/// How to set the device up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuOptions {
    /// Threads that compute; none: one per physical core that this process may use.
    pub threads: Option<usize>,
    /// The arithmetic.
    pub precision: Precision,
    /// Instruction set; none: the best one of the machine.
    pub isa: Option<Isa>,
}

/// The CPU. Operations run one at a time; each uses all threads.
///
/// Results do not depend on the number of threads. They may differ by rounding between instruction sets, and between
/// a row computed alone and the same row computed among many.
pub struct CpuDevice {
    info: DeviceInfo,
    work: Mutex<Work>,
}

impl CpuDevice {
    /// Starts the threads. Error: no threads or an absurd number of them, an instruction set that this machine lacks.
    pub fn new(options: CpuOptions) -> Result<Self> {
        let threads = options.threads.unwrap_or_else(topology::usable_cores);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::Option(format!("{threads} threads: must be between 1 and {MAX_THREADS}")));
        }
        let isa = options.isa.unwrap_or_else(Isa::best);
        let kernels = Kernels::of(isa)
            .ok_or_else(|| Error::Option(format!("this machine cannot run the instruction set {isa}")))?;
        let work = Work::new(threads, kernels, options.precision)
            .map_err(|e| Error::Option(format!("cannot start {threads} threads: {e}")))?;
        let info = DeviceInfo {
            backend: "cpu",
            name: topology::processor_name(),
            isa: kernels.isa().name(),
            threads,
            precision: options.precision,
        };
        Ok(Self { info, work: Mutex::new(work) })
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        // A panic inside an operation leaves only scratch behind, which every operation overwrites.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An [`Error::Argument`].
fn argument(op: &'static str, what: impl Display) -> Error {
    Error::Argument { op, what: what.to_string() }
}

/// The first `len` elements of a buffer of this device.
fn floats<'a>(op: &'static str, buffer: &'a Buffer, len: Option<usize>) -> Result<&'a [f32]> {
    let memory =
        buffer.inner.downcast_ref::<Memory<f32>>().ok_or_else(|| argument(op, "a buffer of another device"))?;
    len.and_then(|len| memory.get(..len)).ok_or_else(|| too_small(op, buffer.len, len))
}

/// [`floats`] to write.
fn floats_mut<'a>(op: &'static str, buffer: &'a mut Buffer, len: Option<usize>) -> Result<&'a mut [f32]> {
    let have = buffer.len;
    let memory =
        buffer.inner.downcast_mut::<Memory<f32>>().ok_or_else(|| argument(op, "a buffer of another device"))?;
    len.and_then(|len| memory.get_mut(..len)).ok_or_else(|| too_small(op, have, len))
}

fn too_small(op: &'static str, have: usize, need: Option<usize>) -> Error {
    match need {
        Some(need) => argument(op, format_args!("a buffer of {have} elements where {need} are needed")),
        None => argument(op, "a size that overflows"),
    }
}

impl Device for CpuDevice {
    fn info(&self) -> DeviceInfo {
        self.info.clone()
    }

    fn alloc(&self, len: usize) -> Result<Buffer> {
        Ok(Buffer { inner: Box::new(Memory::<f32>::zeroed(len, "a buffer")?), len })
    }

    fn upload(&self, tensor: &HostTensor, usage: WeightUse) -> Result<Weight> {
        weight::upload(&mut self.work().team, tensor, usage)
    }

    fn kv_cache(&self, spec: &KvSpec) -> Result<KvCache> {
        kv::kv_cache(spec)
    }

    fn copy_kv_block(&self, cache: &mut KvCache, from: u32, to: u32) -> Result<()> {
        kv::copy_block(cache, from, to)
    }

    fn write(&self, from: &[f32], to: &mut Buffer) -> Result<()> {
        floats_mut("write", to, Some(from.len()))?.copy_from_slice(from);
        Ok(())
    }

    fn read(&self, from: &Buffer, to: &mut [f32]) -> Result<()> {
        to.copy_from_slice(floats("read", from, Some(to.len()))?);
        Ok(())
    }

    fn embed(
        &self,
        table: &Weight,
        tokens: &[u32],
        scale: f32,
        residual: Option<&Buffer>,
        out: &mut Buffer,
    ) -> Result<()> {
        op::embed::embed(&mut self.work(), table, tokens, scale, residual, out)
    }

    fn norm(&self, x: &Buffer, n_rows: usize, width: usize, epilogue: Epilogue<'_>, out: &mut Buffer) -> Result<()> {
        op::linear::norm(&mut self.work(), x, n_rows, width, &epilogue, out)
    }

    fn linear(
        &self,
        x: &Buffer,
        n_rows: usize,
        norm: Option<&Norm>,
        projection: &Projection,
        epilogue: Epilogue<'_>,
        out: &mut Buffer,
    ) -> Result<()> {
        op::linear::linear(&mut self.work(), x, n_rows, norm, projection, epilogue, out)
    }

    fn qkv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &Qkv<'_>,
        cache: &mut KvCache,
        layer: usize,
        q: &mut Buffer,
    ) -> Result<()> {
        op::qkv::qkv(&mut self.work(), x, rows, args, cache, layer, q)
    }

    fn latent_qkv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &LatentQkv<'_>,
        cache: &mut KvCache,
        layer: usize,
        q: &mut Buffer,
    ) -> Result<()> {
        op::latent::latent_qkv(&mut self.work(), x, rows, args, cache, layer, q)
    }

    fn heads(&self, x: &Buffer, n_rows: usize, stack: &Projection, out: &mut Buffer) -> Result<()> {
        op::latent::heads(&mut self.work(), x, n_rows, stack, out)
    }

    fn attend(
        &self,
        q: &Buffer,
        rows: &Rows,
        args: &Attend<'_>,
        cache: &KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()> {
        op::attend::attend(&mut self.work(), q, rows, args, cache, layer, out)
    }

    fn output_gate(
        &self,
        x: &Buffer,
        n_rows: usize,
        norm: Option<&Norm>,
        gate: &Projection,
        values: &Buffer,
        out: &mut Buffer,
    ) -> Result<()> {
        op::output_gate::output_gate(&mut self.work(), x, n_rows, norm, gate, values, out)
    }

    fn short_conv(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &ShortConv<'_>,
        cache: &mut KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()> {
        op::short_conv::short_conv(&mut self.work(), x, rows, args, cache, layer, out)
    }

    fn delta_rule(
        &self,
        x: &Buffer,
        rows: &Rows,
        args: &DeltaRule<'_>,
        cache: &mut KvCache,
        layer: usize,
        out: &mut Buffer,
    ) -> Result<()> {
        op::delta_rule::delta_rule(&mut self.work(), x, rows, args, cache, layer, out)
    }

    fn feed_forward(&self, x: &Buffer, n_rows: usize, args: &FeedForward<'_>, out: &mut Buffer) -> Result<()> {
        op::feed_forward::feed_forward(&mut self.work(), x, n_rows, args, out)
    }

    fn experts(&self, x: &Buffer, n_rows: usize, args: &Experts<'_>, out: &mut Buffer) -> Result<()> {
        op::experts::experts(&mut self.work(), x, n_rows, args, out)
    }

    fn layer_input(&self, x: &Buffer, n_rows: usize, args: &LayerInput<'_>, out: &mut Buffer) -> Result<()> {
        op::layer_input::layer_input(&mut self.work(), x, n_rows, args, out)
    }

    fn streams(&self, x: &Buffer, n_rows: usize, width: usize, step: &Streams<'_>, out: &mut Buffer) -> Result<()> {
        op::streams::streams(&mut self.work(), x, n_rows, width, step, out)
    }

    fn logits(&self, x: &Buffer, wanted: &[u32], args: &Logits<'_>, out: &mut Buffer) -> Result<()> {
        op::logits::logits(&mut self.work(), x, wanted, args, out)
    }
}
