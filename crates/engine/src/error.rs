//! The crate's error type.

/// What can go wrong in the engine. Every message names the thing it was about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The prompt is longer than the window. Nothing was computed.
    #[error("the prompt has {prompt} tokens, but the context window holds {limit}")]
    ContextOverflow {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens the window holds.
        limit: usize,
    },
    /// A request without tokens: there is nothing to continue.
    #[error("the prompt is empty: there is no token to continue from")]
    EmptyPrompt,
    /// A token id that the model does not have.
    #[error("token {id} at position {position} of the prompt is outside the vocabulary of {n_vocab} tokens")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Where in the prompt.
        position: usize,
        /// Tokens in the vocabulary.
        n_vocab: usize,
    },
    /// A sampling parameter outside its range.
    #[error("{name} is {value}, but must be {range}")]
    Sampling {
        /// The parameter, as the field is called.
        name: &'static str,
        /// Its value, printed.
        value: String,
        /// What it may be.
        range: &'static str,
    },
    /// The model produced no usable number: every logit was NaN or infinite.
    #[error("the model produced no finite logit at position {position} (damaged weights, or numbers out of range)")]
    NoFiniteLogits {
        /// Position whose prediction failed.
        position: usize,
    },
    /// A panic while this request was being computed. The engine's state was rebuilt; other requests go on.
    #[error("internal error while computing: {message}")]
    Panicked {
        /// What the panic said.
        message: String,
    },
    /// The KV cache has too few positions for what was asked.
    #[error("the KV cache holds {available} positions, {needed} are needed")]
    CacheTooSmall {
        /// Positions needed.
        needed: usize,
        /// Positions there are.
        available: usize,
    },
    /// An engine setting outside its range.
    #[error("engine setting {name}: {problem}")]
    Config {
        /// The setting, as the field is called.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The caller's callback asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The worker thread is gone.
    #[error("the engine has stopped")]
    Stopped,
    /// The worker thread could not be started.
    #[error("cannot start the engine's thread")]
    Thread(#[source] std::io::Error),
    /// The chat template refused or failed.
    #[error(transparent)]
    Text(#[from] Box<text::Error>),
    /// The decoder failed.
    #[error(transparent)]
    Model(Box<dyn std::error::Error + Send + Sync>),
}

/// Result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
