//! What choosing a token costs over a vocabulary of 128k, for the chains that people use:
//! `cargo run --release -p rustorch-engine --example sampling`. The goal is 0.2 ms.
//!
//! The rows are like those of a trained model: nearly normal, with a few tokens far above the rest.

use engine::{
    Sampling,
    sample::{Chain, Xoshiro256},
};
use std::{error::Error, io::Write, time::Instant};

const N_VOCAB: usize = 128_256;
const N_TOKENS: usize = 200;

/// A row of standard deviation 2.5 with fifty tokens from `best` downwards.
fn row(dice: &mut Xoshiro256, best: f32) -> Vec<f32> {
    let mut normal = || (0..12).map(|_| dice.next_f64()).sum::<f64>() as f32 - 6.0;
    let mut row: Vec<f32> = (0..N_VOCAB).map(|_| 2.5 * normal()).collect();
    for rank in 0..50 {
        row[rank * 2503 % N_VOCAB] = best - 0.3 * rank as f32;
    }
    row
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut dice = Xoshiro256::new(1);
    let mut out = std::io::stdout().lock();
    let plain = Sampling { seed: Some(1), top_p: 1.0, ..Sampling::default() };
    let chains = [
        ("greedy", Sampling { temperature: 0.0, ..plain.clone() }),
        ("top-k 40, top-p 0.9 (the default)", Sampling { top_k: 40, top_p: 0.9, ..plain.clone() }),
        ("top-p 0.9", Sampling { top_p: 0.9, ..plain.clone() }),
        ("min-p 0.05", Sampling { min_p: 0.05, ..plain.clone() }),
        ("temperature 0.7", plain.clone()),
        ("temperature 1", Sampling { temperature: 1.0, ..plain.clone() }),
        ("penalties, top-k 40", Sampling { top_k: 40, repeat_penalty: 1.1, frequency_penalty: 0.1, ..plain }),
    ];
    for (kind, best) in [("sure", 25.0), ("unsure", 12.0), ("flat", 0.0)] {
        let rows: Vec<Vec<f32>> = (0..8).map(|_| row(&mut dice, best)).collect();
        for (name, sampling) in &chains {
            let mut chain = Chain::new(sampling)?;
            let mut times = Vec::with_capacity(N_TOKENS);
            for at in 0..N_TOKENS {
                let start = Instant::now();
                let token = chain.choose(&rows[at % rows.len()]).ok_or("no finite logit")?;
                chain.accept(token);
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            times.sort_by(f64::total_cmp);
            writeln!(out, "{kind:<8} {name:<36} {:>8.1} us (least {:.1})", times[N_TOKENS / 2], times[0])?;
        }
    }
    Ok(())
}
