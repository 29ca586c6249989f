//! Tensors that do not make the model that the numbers describe, and loading that is stopped.

use crate::made::{Made, Meta};
use crate::running::device;
use compute::Precision;
use model::{Decoder, LoadOptions, LoadProgress};
use std::ops::ControlFlow;

fn load(architecture: &'static str, change: impl FnOnce(&mut Made)) -> Result<Decoder, String> {
    let mut made = Made::good(architecture);
    change(&mut made);
    let mut all = |_| ControlFlow::Continue(());
    Decoder::load(&made.open(), device(Precision::F32), &LoadOptions::default(), &mut all).map_err(|e| e.to_string())
}

#[test]
fn tensors_must_fit_the_numbers() {
    #[track_caller]
    fn check(architecture: &'static str, change: impl FnOnce(&mut Made), expected: &str) {
        let error = load(architecture, change).err().unwrap();
        assert!(error.contains(expected), "{error}");
    }
    check("llama", |m| m.without("blk.1.attn_q.weight"), "blk.1.attn_q.weight is missing");
    check("llama", |m| m.without("blk.0.ffn_norm.weight"), "blk.0.ffn_norm.weight is missing");
    check("llama", |m| m.without("output_norm.weight"), "output_norm.weight is missing");
    check("gemma2", |_| {}, "blk.0.post_attention_norm.weight is missing");
    check(
        "llama",
        |m| m.tensor("blk.1.attn_k.weight", &[16, 16]),
        "blk.1.attn_k.weight has the shape [16, 16], expected [8, 16]",
    );
    check("llama", |m| m.tensor("blk.0.attn_norm.weight", &[16, 1]), "expected [16]");
    check("llama", |m| m.tensor("blk.0.attn_q.bias", &[8]), "blk.0.attn_q.bias has the shape [8], expected [16]");
    check(
        "llama",
        |m| m.without("blk.0.ffn_gate.weight"),
        "blk.0.ffn_up.weight has the shape [24, 16], expected [48, 16]",
    );
    check("llama", |m| m.tensor("rope_freqs.weight", &[3]), "rope_freqs.weight has the shape [3], expected [2]");
    check("llama", |m| m.tensor("blk.0.attn_q.scale", &[1]), "no place for, among them blk.0.attn_q.scale");
    check("llama", |m| m.tensor("position_embd.weight", &[64, 16]), "no place for, among them position_embd.weight");
    check("olmo2", |_| {}, "post_attention_norm.weight is missing");
    check("llama", |m| m.set("llama.feed_forward_length", Meta::U32(0)), "llama.feed_forward_length is 0");
}

#[test]
fn optional_tensors_and_other_modalities() {
    let change = |m: &mut Made| {
        m.tensor("v.patch_embd.weight", &[4, 4]);
        m.tensor("blk.0.rope_freqs.weight", &[2]);
        m.tensor("blk.2.nextn.eh_proj.weight", &[4, 4]);
        m.tensor("blk.0.attn_q.bias", &[16]);
        m.tensor("blk.0.attn_k_norm.weight", &[4]);
        m.tensor("output.weight", &[32, 16]);
    };
    let decoder = load("llama", change).unwrap();
    assert_eq!(
        decoder.unused_tensors(),
        ["v.patch_embd.weight", "blk.0.rope_freqs.weight", "blk.2.nextn.eh_proj.weight"]
    );
}

#[test]
fn progress_reaches_the_end_or_stops() {
    let checkpoint = Made::good("llama").open();
    let total_bytes: u64 = checkpoint.tensors().iter().map(|t| t.bytes).sum();
    let options = LoadOptions::default();
    let mut seen: Vec<LoadProgress> = Vec::new();
    let mut watch = |at| {
        seen.push(at);
        ControlFlow::Continue(())
    };
    Decoder::load(&checkpoint, device(Precision::F32), &options, &mut watch).unwrap();
    assert!(seen.iter().all(|at| at.total_bytes == total_bytes));
    assert!(seen.is_sorted_by_key(|at| at.done_bytes));
    assert_eq!(seen.last().map(|at| at.done_bytes), Some(total_bytes));
    let mut stop =
        |at: LoadProgress| if at.done_bytes > 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let error = Decoder::load(&checkpoint, device(Precision::F32), &options, &mut stop).err().unwrap();
    assert!(matches!(error, model::Error::Cancelled), "{error}");
}
