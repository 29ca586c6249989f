//! The numbers of a model as metadata in the house's convention, and the proof that reading them back gives the model.
//!
//! Keys are those of the GGUF specification. A number is left out where its absence means it; what the specification has
//! no key for, this program's own reader has one.

use crate::architecture::{WindowPattern, WindowedRope};
use crate::hyper::USUAL_LIMIT;
use crate::rope::RopeScaling;
use crate::{Error, HyperParams, LayerParams, Mixer, Result};
use checkpoint::Value;
use compute::NormKind;

type Fields = Vec<(String, Value)>;

/// The keys of one model.
struct Numbers<'h> {
    hyper: &'h HyperParams,
    /// Which layers have experts.
    has_experts: &'h [bool],
    fields: Fields,
}

/// The metadata that say what model `hyper` is, of whose layers these have experts. Error: a number that is too large, or has
/// no key.
pub(super) fn numbers(hyper: &HyperParams, has_experts: &[bool]) -> Result<Fields> {
    let mut numbers = Numbers { hyper, has_experts, fields: Vec::new() };
    numbers.fields.push(("general.architecture".to_owned(), Value::text(hyper.architecture.name)));
    numbers.fields.push(("general.type".to_owned(), Value::text("model")));
    numbers.sizes()?;
    numbers.scales()?;
    numbers.rope()?;
    numbers.windows()?;
    numbers.experts()?;
    numbers.recurrence()?;
    Ok(numbers.fields)
}

impl Numbers<'_> {
    fn put(&mut self, key: &str, value: Value) {
        self.fields.push((format!("{}.{key}", self.hyper.architecture.name), value));
    }

    fn count(&mut self, key: &str, n: usize) -> Result<()> {
        let n = u32::try_from(n).map_err(|_| Error::Overflow { what: key.to_owned() })?;
        self.put(key, Value::U32(n));
        Ok(())
    }

    fn float(&mut self, key: &str, x: f32) {
        self.put(key, Value::F32(x));
    }

    /// One number where all layers have the same, else a list.
    fn per_layer(&mut self, key: &str, of: impl Fn(&LayerParams) -> usize) -> Result<()> {
        let counts: Option<Vec<u32>> = self.hyper.layers.iter().map(|layer| u32::try_from(of(layer)).ok()).collect();
        let counts = counts.ok_or_else(|| Error::Overflow { what: key.to_owned() })?;
        match counts.first() {
            Some(&first) if counts.iter().all(|&n| n == first) => self.put(key, Value::U32(first)),
            _ => self.put(key, Value::counts(&counts)),
        }
        Ok(())
    }

    fn sizes(&mut self) -> Result<()> {
        let hyper = self.hyper;
        self.count("block_count", hyper.n_layers)?;
        self.count("context_length", hyper.context_length)?;
        self.count("embedding_length", hyper.width)?;
        self.count("vocab_size", hyper.n_vocab)?;
        self.per_layer("feed_forward_length", |layer| layer.n_ff)?;
        self.per_layer("attention.head_count", |layer| layer.n_heads)?;
        // Files of models with the delta rule have the number of the layers that attend; others tell them by it.
        let attending = hyper.layers.iter().map(|layer| layer.n_kv_heads).max().unwrap_or(0);
        self.per_layer("attention.head_count_kv", |layer| match layer.mixer {
            Mixer::DeltaRule(_) => attending,
            Mixer::Attention | Mixer::ShortConv { .. } => layer.n_kv_heads,
        })?;
        let of = |local: bool| hyper.layers.iter().find(|layer| layer.local == local).or(hyper.layers.first());
        let dims = |local: bool| of(local).map_or((0, 0), |layer| (layer.head_dim, layer.v_head_dim));
        let ((k_dim, v_dim), narrow) = (dims(false), dims(true));
        self.count("attention.key_length", k_dim)?;
        self.count("attention.value_length", v_dim)?;
        if narrow != (k_dim, v_dim) || hyper.architecture.values_may_be_keys {
            self.count("attention.key_length_swa", narrow.0)?;
            self.count("attention.value_length_swa", narrow.1)?;
        }
        self.sharing()?;
        if let Some(latent) = &hyper.latent {
            latent.q_rank.map_or(Ok(()), |rank| self.count("attention.q_lora_rank", rank))?;
            self.count("attention.kv_lora_rank", latent.rank)?;
            self.count("attention.key_length_mla", latent.nope_dim + latent.rope_dim)?;
            self.count("attention.value_length_mla", latent.v_dim)?;
        }
        let a = hyper.architecture;
        match a.norm {
            NormKind::Rms => self.float("attention.layer_norm_rms_epsilon", hyper.norm_eps),
            NormKind::Layer => self.float("attention.layer_norm_epsilon", hyper.norm_eps),
        }
        // Some readers of files of these families ask for it whatever it is.
        if a.norm == NormKind::Layer || hyper.parallel != a.parallel {
            self.put("use_parallel_residual", Value::Bool(hyper.parallel));
        }
        for (key, number) in [("attention.clamp_kqv", hyper.clamp), ("attention.max_alibi_bias", hyper.alibi)] {
            number.into_iter().for_each(|number| self.float(key, number));
        }
        Ok(())
    }

    /// Which layers read what others keep, the embeddings of layers, several residual streams, sparse activations.
    fn sharing(&mut self) -> Result<()> {
        let hyper = self.hyper;
        let n_shared = hyper.layers.iter().filter(|layer| layer.shares.is_some()).count();
        if n_shared > 0 || hyper.architecture.says_sharing {
            self.count("attention.shared_kv_layers", n_shared)?;
            self.count("embedding_length_per_layer_input", hyper.layer_input_dim.unwrap_or(0))?;
        }
        if let Some(streams) = hyper.streams {
            self.count("altup.num_inputs", streams.n)?;
            self.count("altup.active_idx", 0)?;
            if streams.limit != USUAL_LIMIT {
                self.float("altup.limit", streams.limit);
            }
        }
        if hyper.layers.iter().any(|layer| layer.sparsity.is_some()) || hyper.architecture.default_sparsity.is_some() {
            // Below everything: all of it counts.
            let deviations = hyper.layers.iter().map(|layer| layer.sparsity.unwrap_or(f32::NEG_INFINITY));
            self.put("activation_sparsity_scale", Value::floats(&deviations.collect::<Vec<f32>>()));
        }
        Ok(())
    }

    /// Factors and caps, where they are not what a reader assumes.
    fn scales(&mut self) -> Result<()> {
        let (hyper, a) = (self.hyper, self.hyper.architecture);
        let embedding = if a.root_width_embedding { (hyper.width as f32).sqrt() } else { 1.0 };
        let first = hyper.layers.first();
        let scaled = if a.width_scaled_queries_at == Some(hyper.n_layers) {
            hyper.width as f32 / first.map_or(1, |layer| layer.n_heads) as f32
        } else {
            let whole = hyper.latent.as_ref().map(|latent| latent.nope_dim + latent.rope_dim);
            whole.unwrap_or(first.map_or(1, |layer| layer.head_dim)) as f32
        };
        let sharpness = if hyper.latent.is_some() { hyper.rope.score_factor } else { 1.0 };
        let logits = if a.logit_scale_divides { exact_reciprocal(hyper.logit_scale) } else { hyper.logit_scale };
        for (key, value, assumed) in [
            ("embedding_scale", hyper.embedding_scale, embedding),
            ("attention.scale", hyper.attention_scale, a.default_attention_scale.unwrap_or(sharpness / scaled.sqrt())),
            ("residual_scale", hyper.residual_scale, 1.0),
            ("logit_scale", logits, 1.0),
        ] {
            if value != assumed {
                self.float(key, value);
            }
        }
        if hyper.query_growth != a.query_growth {
            self.float("attention.temperature_scale", hyper.query_growth.map_or(0.0, |growth| growth.weight));
            if let Some(growth) = hyper.query_growth {
                self.count("attention.temperature_length", growth.span as usize)?;
            }
        }
        let n_experts = hyper.experts.as_ref().map(|experts| experts.n_experts);
        let assumed = a.bare_head_norms && (n_experts.is_none() || a.no_head_norms_at != n_experts);
        if hyper.bare_head_norms != assumed {
            self.put("attention.head_norms", Value::Bool(hyper.bare_head_norms));
        }
        for (key, cap, assumed) in [
            ("attn_logit_softcapping", hyper.attention_softcap, a.default_attention_softcap),
            ("final_logit_softcapping", hyper.logit_softcap, a.default_logit_softcap),
        ] {
            if cap.is_some() || assumed.is_some() {
                self.float(key, cap.unwrap_or(0.0));
            }
        }
        Ok(())
    }

    fn rope(&mut self) -> Result<()> {
        if !self.hyper.has_rope {
            return Ok(());
        }
        let rope = &self.hyper.rope;
        self.count("rope.dimension_count", rope.n_dims)?;
        if self.hyper.architecture.rope_sections {
            let n = u32::try_from(rope.n_dims / 2).unwrap_or(0);
            self.put("rope.dimension_sections", Value::counts(&[n.div_ceil(3), (n + 1) / 3, n / 3, 0]));
        }
        self.float("rope.freq_base", rope.base as f32);
        if let Some(base) = rope.local_base {
            self.float("rope.freq_base_swa", base as f32);
        }
        if rope.local_n_dims != rope.n_dims {
            self.count("rope.dimension_count_swa", rope.local_n_dims)?;
        }
        let original = rope.original_context;
        match rope.scaling {
            // Bands, and pairs that do not turn, become a tensor of divisors.
            RopeScaling::None | RopeScaling::Bands { .. } | RopeScaling::Leading { .. } => {}
            RopeScaling::Linear { factor } => {
                self.put("rope.scaling.type", Value::text("linear"));
                self.float("rope.scaling.factor", factor as f32);
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate } => {
                self.put("rope.scaling.type", Value::text("yarn"));
                self.float("rope.scaling.factor", factor as f32);
                self.count("rope.scaling.original_context_length", original)?;
                self.float("rope.scaling.yarn_beta_fast", beta_fast as f32);
                self.float("rope.scaling.yarn_beta_slow", beta_slow as f32);
                if self.says_magnitude_of_scores() {
                    // The magnitude belongs to the scores: a tenth of its weight is said, from which its square follows.
                    let tenth = (f64::from(rope.score_factor).sqrt() - 1.0) / factor.ln();
                    self.float("rope.scaling.yarn_log_multiplier", tenth as f32);
                }
                if !truncate {
                    self.put("rope.scaling.truncate", Value::Bool(false));
                }
            }
            // Its divisors become tensors, which tell the kind.
            RopeScaling::LongRope => self.count("rope.scaling.original_context_length", original)?,
            RopeScaling::Dynamic { .. } => {
                let what = "RoPE scaling \"dynamic\" in a file of this format".to_owned();
                return Err(Error::Unsupported { what });
            }
        }
        if rope.attention_factor != 1.0 && !self.says_magnitude_of_scores() {
            self.float("rope.scaling.attn_factor", rope.attention_factor as f32);
        }
        let a = self.hyper.architecture;
        let has_windows = self.hyper.layers.iter().any(|layer| layer.window.is_some());
        let only_windowed = has_windows && a.windowed_rope == WindowedRope::Only;
        let assumed = |i: usize, layer: &LayerParams| match only_windowed {
            true => layer.window.is_some(),
            false => a.no_rope_every.is_none_or(|every| !(i + 1).is_multiple_of(every)),
        };
        if self.hyper.layers.iter().enumerate().any(|(i, layer)| layer.rotates != assumed(i, layer)) {
            let flags: Vec<bool> = self.hyper.layers.iter().map(|layer| layer.rotates).collect();
            self.put("rope.layers", Value::flags(&flags));
        }
        Ok(())
    }

    /// Whether YaRN's magnitude belongs to the scores and not to what rotates.
    fn says_magnitude_of_scores(&self) -> bool {
        let is_yarn = matches!(self.hyper.rope.scaling, RopeScaling::Yarn { .. });
        is_yarn && self.hyper.latent.is_some() && self.hyper.rope.score_factor != 1.0
    }

    fn windows(&mut self) -> Result<()> {
        let (layers, a) = (&self.hyper.layers, self.hyper.architecture);
        let key = "attention.sliding_window";
        let mut sizes: Vec<usize> = layers.iter().filter_map(|layer| layer.window).collect();
        sizes.sort_unstable();
        sizes.dedup();
        match sizes.as_slice() {
            [] if a.default_window.is_some() => self.count(key, 0)?,
            [] => return Ok(()),
            [size] => self.count(key, *size)?,
            _ => {
                return Err(Error::Unsupported {
                    what: "windows of several sizes in a file of this format".to_owned(),
                });
            }
        }
        let assumed = |layer: usize| match a.window_pattern {
            WindowPattern::Every => true,
            WindowPattern::AllButLastOf(period) => !(layer + 1).is_multiple_of(period),
        };
        let is_said = a.says_sharing;
        if !sizes.is_empty()
            && (is_said || layers.iter().enumerate().any(|(i, layer)| layer.window.is_some() != assumed(i)))
        {
            let flags: Vec<bool> = layers.iter().map(|layer| layer.window.is_some()).collect();
            self.put("attention.sliding_window_pattern", Value::flags(&flags));
        }
        Ok(())
    }

    fn recurrence(&mut self) -> Result<()> {
        let layers = &self.hyper.layers;
        let is_recurrent = |layer: &LayerParams| layer.mixer != Mixer::Attention;
        match layers.iter().find(|layer| is_recurrent(layer)).map(|layer| layer.mixer) {
            None | Some(Mixer::Attention) => Ok(()),
            Some(Mixer::ShortConv { n_taps }) => self.count("shortconv.l_cache", n_taps),
            Some(Mixer::DeltaRule(delta)) => {
                let period = layers.iter().position(|layer| !is_recurrent(layer)).map(|first| first + 1);
                let regular = |p: &usize| layers.iter().enumerate().all(|(i, l)| is_recurrent(l) == ((i + 1) % p != 0));
                if let Some(period) = period.filter(regular) {
                    self.count("full_attention_interval", period)?;
                }
                self.count("ssm.conv_kernel", delta.n_taps)?;
                self.count("ssm.state_size", delta.k_dim)?;
                self.count("ssm.group_count", delta.n_k_heads)?;
                self.count("ssm.time_step_rank", delta.n_v_heads)?;
                self.count("ssm.inner_size", delta.v_width())
            }
        }
    }

    fn experts(&mut self) -> Result<()> {
        let Some(experts) = &self.hyper.experts else { return Ok(()) };
        let rule = experts.rule;
        self.count("expert_count", experts.n_experts)?;
        self.count("expert_used_count", rule.n_used)?;
        self.count("expert_feed_forward_length", experts.n_ff)?;
        if let Some(n_ff) = experts.shared_n_ff {
            self.count("expert_shared_feed_forward_length", n_ff)?;
            self.count("expert_shared_count", n_ff.checked_div(experts.n_ff).unwrap_or(1).max(1))?;
        }
        // Readers of files of these families ask for it whatever it is.
        let n_dense = self.has_experts.iter().take_while(|has| !**has).count();
        let step = expert_step(self.has_experts, n_dense);
        if let Some(step) = step.filter(|step| *step > 1 || self.hyper.architecture.names_expert_step) {
            self.count("interleave_moe_layer_step", step)?;
        }
        if n_dense > 0 || self.hyper.latent.is_some() {
            self.count("leading_dense_block_count", n_dense)?;
        }
        if rule.normalize != self.hyper.architecture.normalizes_experts {
            self.put("expert_weights_norm", Value::Bool(rule.normalize));
        }
        if let Some(peers) = rule.peers.filter(|_| rule.peers != self.hyper.architecture.expert_peers) {
            self.float("expert_jitter", peers / 2.0);
        }
        if let Some(groups) = rule.groups {
            self.count("expert_group_count", groups.n_groups)?;
            self.count("expert_group_used_count", groups.n_used)?;
        }
        if rule.scale != 1.0 || self.hyper.latent.is_some() {
            self.float("expert_weights_scale", rule.scale);
        }
        let gating = match (rule.sigmoid, rule.softmax_after_choice) {
            (true, _) => Some(2),
            (false, true) => Some(3),
            (false, false) if self.hyper.architecture.sigmoid_experts => Some(1),
            (false, false) => None,
        };
        gating.map_or(Ok(()), |number| self.count("expert_gating_func", number))
    }
}

/// Layers have experts where this divides their number, from 1 on, after the first `n_dense`. `None`: there is no such rule.
fn expert_step(has_experts: &[bool], n_dense: usize) -> Option<usize> {
    let expected = |i: usize, step: usize| (i + 1).is_multiple_of(step) && i >= n_dense;
    (1..=has_experts.len()).find(|&step| has_experts.iter().enumerate().all(|(i, has)| *has == expected(i, step)))
}

/// A number whose reciprocal is exactly `x`, where there is one near `1 / x`.
fn exact_reciprocal(x: f32) -> f32 {
    let near = 1.0 / x;
    [near, near.next_up(), near.next_down()].into_iter().find(|y| 1.0 / y == x).unwrap_or(near)
}

/// Whether `written` is the model `source`, whose file followed another convention.
pub(super) fn check(source: &HyperParams, written: &HyperParams) -> Result<()> {
    let mut expected = source.clone();
    // The order of rows, and what became tensors.
    expected.rope.pairing = written.rope.pairing;
    expected.tied_embeddings = written.tied_embeddings;
    for layer in &mut expected.layers {
        if let Mixer::DeltaRule(delta) = &mut layer.mixer {
            delta.in_turns = source.architecture.house_heads_in_turns;
        }
    }
    expected.rope.divisors = None;
    if matches!(source.rope.scaling, RopeScaling::Bands { .. } | RopeScaling::Leading { .. } | RopeScaling::LongRope) {
        expected.rope.scaling = RopeScaling::None;
    }
    if !matches!(source.rope.scaling, RopeScaling::Yarn { .. } | RopeScaling::LongRope) {
        expected.rope.original_context = written.rope.original_context;
    }
    // What follows from another number, to its rounding.
    let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * a.abs();
    if near(source.rope.score_factor, written.rope.score_factor) && source.latent.is_some() {
        expected.rope.score_factor = written.rope.score_factor;
        if near(source.attention_scale, written.attention_scale) {
            expected.attention_scale = written.attention_scale;
        }
    }
    // Files hold singles.
    let single = |x: f64| f64::from(x as f32);
    expected.rope.attention_factor = single(expected.rope.attention_factor);
    expected.rope.base = single(expected.rope.base);
    expected.rope.local_base = expected.rope.local_base.map(single);
    if expected == *written {
        return Ok(());
    }
    let what = format!("a model of this kind in a file of this format ({})", difference(&expected, written));
    Err(Error::Unsupported { what })
}

/// The first field in which two models differ, for a message.
fn difference(one: &HyperParams, other: &HyperParams) -> String {
    let (one, other) = (format!("{one:#?}"), format!("{other:#?}"));
    let lines = one.lines().zip(other.lines()).find(|(a, b)| a != b);
    lines.map_or_else(String::new, |(a, b)| format!("it would say `{}` for `{}`", b.trim(), a.trim()))
}
