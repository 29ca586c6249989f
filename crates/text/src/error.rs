//! The errors of this crate: each names the template part, metadata key or limit that it is about.

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a template or a tokenizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file of the template cannot be used.
    #[error("chat template: {file}: {problem}")]
    TemplateFile {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The template's source is not valid.
    #[error("chat template, line {line}: syntax error: {problem}")]
    TemplateSyntax {
        /// Line in the template, from 1; 0 when unknown.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
    /// The template failed on this conversation.
    #[error("chat template, line {line}: {problem}")]
    TemplateRender {
        /// Line in the template, from 1; 0 when unknown.
        line: usize,
        /// What failed.
        problem: String,
    },
    /// The template itself refused the conversation, by `raise_exception`.
    #[error("the chat template refuses this conversation: {0}")]
    TemplateRaised(String),
    /// The template wanted more than a template may have.
    #[error("chat template: {what} is over the limit of {limit}")]
    TemplateLimit {
        /// What there was too much of.
        what: &'static str,
        /// The limit, with its unit.
        limit: String,
    },
    /// The machine refused the thread that templates run on.
    #[error("chat template: cannot start its thread: {0}")]
    TemplateThread(std::io::Error),
    /// A metadata key or a field of a file of the tokenizer is missing, of the wrong type or inconsistent.
    #[error("tokenizer: {key}: {problem}")]
    Vocabulary {
        /// The metadata key, or the file and its field.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The tokenizer's family is not one that this program has.
    #[error("tokenizer.ggml.model: unknown tokenizer '{found}' (known: {known})")]
    UnknownTokenizer {
        /// The name in the file.
        found: String,
        /// The names that are known.
        known: String,
    },
    /// The pre-tokenizer is not one that this program has.
    #[error("tokenizer.ggml.pre: unknown pre-tokenizer '{found}' (known: {known})")]
    UnknownPreTokenizer {
        /// The name in the file.
        found: String,
        /// The names that are known.
        known: String,
    },
    /// Reading the checkpoint's metadata failed.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
}
