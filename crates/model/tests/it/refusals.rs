//! Tensors that do not make the model that the numbers describe, and loading that is stopped.

use crate::made::{Made, Meta};
use crate::running::device;
use compute::cpu::CpuDevice;
use compute::{KvType, Precision, Rows, SequenceRows, StateRows};
use model::{Batch, Decoder, LoadOptions, LoadProgress};
use std::ops::ControlFlow;
use std::sync::Arc;

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

/// Whatever single number or shape is broken, the answer is an error or a model that runs: never a panic.
#[test]
fn broken_files_never_panic() {
    let numbers = [0, 1, 2, 3, 5, 7, 63, 4096, 65_536, 1 << 24, 1 << 31, u32::MAX];
    let floats = [0.0, -0.0, 1e-45, -1.0, 0.5, 1.0, 1e30, f32::MAX, f32::INFINITY, f32::NAN];
    let device = device(Precision::F32);
    for architecture in model::Architecture::all() {
        let good = made_for(architecture);
        try_to_run(&good, &device);
        let mut keys: Vec<String> = good.keys.iter().map(|(key, _)| key.clone()).collect();
        keys.retain(|key| key.starts_with(architecture.name));
        keys.extend(MORE_KEYS.iter().map(|key| format!("{}.{key}", architecture.name)));
        for key in &keys {
            let values = numbers.map(Meta::U32).into_iter().chain(floats.map(Meta::F32));
            let lists = [vec![], vec![4], vec![2, 4], vec![0, 2]].map(Meta::Counts);
            for value in values.chain(lists).chain([Meta::Text("yarn"), Meta::Flags(vec![true, false])]) {
                let mut made = good.clone();
                made.set(key, value);
                try_to_run(&made, &device);
            }
        }
        for (name, shape) in &good.tensors {
            for change in [&[][..], &[1], &[0], &[3, 16], &[16, 3], &[16, 16, 16], &[1, 1, 1, 1]] {
                let mut made = good.clone();
                match change {
                    [] => made.without(name),
                    [0] => made.tensor(name, &shape.iter().rev().copied().collect::<Vec<_>>()),
                    other => made.tensor(name, other),
                }
                try_to_run(&made, &device);
            }
        }
    }
}

const MORE_KEYS: &[&str] = &[
    "attention.key_length",
    "attention.value_length",
    "attention.key_length_swa",
    "attention.shared_kv_layers",
    "embedding_length_per_layer_input",
    "altup.num_inputs",
    "activation_sparsity_scale",
    "rope.dimension_count_swa",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "attention.scale",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "expert_count",
    "expert_used_count",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "attention.temperature_length",
    "attention.temperature_scale",
    "expert_jitter",
];

/// A good model with the norms and matrices of the family.
fn made_for(architecture: &model::Architecture) -> Made {
    let mut made = Made::good(architecture.name);
    made.set(&format!("{}.attention.layer_norm_epsilon", architecture.name), Meta::F32(1e-5));
    if !architecture.has_rope {
        made.tensor("position_embd.weight", &[64, 16]);
    }
    if architecture.bare_norms {
        made.tensors.retain(|(name, _)| !name.contains("norm"));
    }
    for i in 0..2 {
        if !architecture.gated {
            made.without(&format!("blk.{i}.ffn_gate.weight"));
        }
        for (house, own) in architecture.house_renamed {
            for (name, _) in &mut made.tensors {
                *name = name.replace(&format!("blk.{i}.{house}."), &format!("blk.{i}.{own}."));
            }
        }
        if architecture.norms != model::NormPlaces::Before {
            made.tensor(&format!("blk.{i}.post_attention_norm.weight"), &[16]);
            made.tensor(&format!("blk.{i}.post_ffw_norm.weight"), &[16]);
        }
        if architecture.norms == model::NormPlaces::After {
            made.without(&format!("blk.{i}.attn_norm.weight"));
            made.without(&format!("blk.{i}.ffn_norm.weight"));
        }
    }
    made
}

/// Loads it and computes two tokens, if it can be loaded.
fn try_to_run(made: &Made, device: &Arc<CpuDevice>) {
    let Ok(checkpoint) = made.try_open() else { return };
    let options = LoadOptions { max_rows: 2, context_length: None };
    let mut all = |_| ControlFlow::Continue(());
    let Ok(mut decoder) = Decoder::load(&checkpoint, device.clone(), &options, &mut all) else { return };
    let Ok(mut cache) = decoder.new_cache(64, KvType::F16) else { return };
    let rows = Rows {
        positions: vec![0, 1],
        sequences: vec![SequenceRows { rows: 0..2, blocks: vec![0], states: Some(StateRows::default()) }],
    };
    let _ = decoder.forward(&Batch { tokens: vec![1, 2], rows, logits: vec![1] }, &mut cache);
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
