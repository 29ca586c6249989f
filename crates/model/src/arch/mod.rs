//! The supported families, one file each. To add one: its file, and the two lines here.

mod arcee;
mod baichuan;
mod bitnet;
mod bitnet_b1_58;
mod chatglm;
mod cohere2;
mod command_r;
mod deepseek2;
mod dots1;
mod ernie4_5;
mod ernie4_5_moe;
mod exaone;
mod exaone4;
mod falcon;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod glm4;
mod glm4moe;
mod gpt2;
mod gpt_oss;
mod gptj;
mod gptneox;
mod granite;
mod granitemoe;
mod hunyuan;
mod hunyuan_moe;
mod internlm2;
mod lfm2;
mod lfm2moe;
mod llama;
mod llama4;
mod minicpm;
mod mpt;
mod nemotron;
mod olmo;
mod olmo2;
mod olmoe;
mod orion;
mod phi2;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2moe;
mod qwen3;
mod qwen35;
mod qwen35moe;
mod qwen3moe;
mod qwen3next;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder;
mod starcoder2;

use crate::Architecture;

pub(crate) use llama::{BANDS_TYPE, META};

/// Families that are known and not supported, by their names in either convention, and what their models need.
pub(crate) const NOT_SUPPORTED: &[(&[&str], &str)] = &[
    (&["mamba", "mamba2", "falcon_mamba", "rwkv", "rwkv6", "rwkv7"], "a recurrent state in place of attention"),
    (
        &["jamba", "bamba", "falcon_h1", "falcon-h1", "granitemoehybrid", "granitehybrid", "nemotron_h", "zamba2"],
        "state-space layers",
    ),
    (&["t5", "t5encoder", "mt5", "bart", "whisper"], "an encoder beside the decoder"),
    (&["bert", "roberta", "modernbert", "modern-bert", "nomic-bert"], "attention in both directions"),
];

/// Every supported family.
pub(crate) const ARCHITECTURES: &[&Architecture] = &[
    &llama::LLAMA,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &qwen3moe::QWEN3MOE,
    &gemma::GEMMA,
    &gemma2::GEMMA2,
    &gemma3::GEMMA3,
    &gemma3n::GEMMA3N,
    &gemma4::GEMMA4,
    &phi3::PHI3,
    &granite::GRANITE,
    &olmo2::OLMO2,
    &smollm3::SMOLLM3,
    &gpt2::GPT2,
    &starcoder::STARCODER,
    &gptj::GPTJ,
    &gptneox::GPTNEOX,
    &starcoder2::STARCODER2,
    &orion::ORION,
    &stablelm::STABLELM,
    &phi2::PHI2,
    &falcon::FALCON,
    &mpt::MPT,
    &command_r::COMMAND_R,
    &cohere2::COHERE2,
    &olmo::OLMO,
    &exaone::EXAONE,
    &exaone4::EXAONE4,
    &chatglm::CHATGLM,
    &glm4::GLM4,
    &nemotron::NEMOTRON,
    &arcee::ARCEE,
    &seed_oss::SEED_OSS,
    &hunyuan::HUNYUAN,
    &ernie4_5::ERNIE4_5,
    &internlm2::INTERNLM2,
    &baichuan::BAICHUAN,
    &minicpm::MINICPM,
    &bitnet::BITNET,
    &bitnet_b1_58::BITNET_B1_58,
    &qwen2moe::QWEN2MOE,
    &phimoe::PHIMOE,
    &llama4::LLAMA4,
    &olmoe::OLMOE,
    &granitemoe::GRANITEMOE,
    &ernie4_5_moe::ERNIE4_5_MOE,
    &gpt_oss::GPT_OSS,
    &glm4moe::GLM4MOE,
    &dots1::DOTS1,
    &hunyuan_moe::HUNYUAN_MOE,
    &deepseek2::DEEPSEEK2,
    &lfm2::LFM2,
    &lfm2moe::LFM2MOE,
    &qwen3next::QWEN3NEXT,
    &qwen35::QWEN35,
    &qwen35moe::QWEN35MOE,
];
