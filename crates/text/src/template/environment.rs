//! The template engine set up as the reference renderer sets its own up.

use std::borrow::Cow;

use jiff::civil::DateTime;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, UndefinedBehavior, filters};

use super::render::{Limit, Raised, check_clock, over_limit};
use super::{json, methods, pystr, rewrite};
use crate::limits;

/// An environment without templates.
pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    if let Ok(syntax) = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build() {
        environment.set_syntax(syntax);
    }
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(limits::TEMPLATE_RECURSION);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, _state, value| {
        check_clock()?;
        match value.as_str() {
            Some(text) => out.write_str(text).map_err(Error::from),
            None => out.write_str(&pystr::str_of(value)?).map_err(Error::from),
        }
    });
    environment.remove_global("debug");
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", |value: &Value| pystr::str_of(value));
    environment.add_filter("trim", trim);
    environment.add_filter("list", list);
    environment.add_filter("join", join);
    environment.add_filter("e", escaped);
    environment.add_filter("escape", escaped);
    environment
        .add_filter("forceescape", |value: Value| pystr::str_of(&value).map(|s| Value::from_safe_string(escape(&s))));
    environment.add_filter(rewrite::ITERATED, iterated);
    environment.add_filter(rewrite::ADDED, added);
    add_generators(&mut environment);
    environment.add_test("iterable", is_iterable);
    environment.add_test("sequence", |value: &Value| is_sequence(value));
    environment
}

/// The filters that are generators in Python and lists in the engine.
fn add_generators(environment: &mut Environment<'static>) {
    type More = Rest<ValueOrKwargs>;
    type Test<'a> = Option<Cow<'a, str>>;
    environment.add_filter("map", |state: &mut State, value: Value, more: More| {
        filters::map(state, filtered(value)?, more).map(generator)
    });
    environment.add_filter("select", |state: &mut State, value: Value, test: Test, more: More| {
        filters::select(state, filtered(value)?, test, more).map(generator)
    });
    environment.add_filter("reject", |state: &mut State, value: Value, test: Test, more: More| {
        filters::reject(state, filtered(value)?, test, more).map(generator)
    });
    environment.add_filter("selectattr", |state: &mut State, value: Value, name: Cow<str>, test: Test, more: More| {
        filters::selectattr(state, filtered(value)?, name, test, more).map(generator)
    });
    environment.add_filter("rejectattr", |state: &mut State, value: Value, name: Cow<str>, test: Test, more: More| {
        filters::rejectattr(state, filtered(value)?, name, test, more).map(generator)
    });
}

/// What the generators run over: nothing where the value counts as false, even if it cannot be iterated.
fn filtered(value: Value) -> Result<Value, Error> {
    if value.is_true() { iterated(value) } else { Ok(Value::from(Vec::<Value>::new())) }
}

fn raise_exception(message: &Value) -> Result<Value, Error> {
    let message = pystr::str_of(message)?;
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

/// The function `strftime_now` for one rendering.
pub(super) fn strftime_now(now: Option<DateTime>) -> Value {
    Value::from_function(move |format: &str| -> Result<String, Error> {
        let now = now.unwrap_or_else(|| jiff::Zoned::now().datetime());
        // A directive may name a width; no date needs more than four digits of one.
        let mut digits = 0;
        if format.chars().any(|c| {
            digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
            digits > 4
        }) {
            return Err(over_limit(Limit::String));
        }
        jiff::fmt::strtime::format(format, now)
            .map_err(|e| Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
    })
}

fn trim(value: &Value, chars: Option<&str>) -> Result<String, Error> {
    let text = pystr::str_of(value)?;
    let chars: Option<Vec<char>> = chars.map(|chars| chars.chars().collect());
    let drop = |c: char| chars.as_ref().map_or(methods::is_space(c), |chars| chars.contains(&c));
    Ok(text.trim_matches(drop).to_owned())
}

fn list(value: &Value) -> Result<Value, Error> {
    if value.is_none() {
        return Err(Error::new(ErrorKind::InvalidOperation, "none is not iterable"));
    }
    Ok(Value::from(value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?))
}

/// Python's `iter(value)` works.
fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// Python's `len(value)` and `value[0]` work: strings and dictionaries are sequences too.
fn is_sequence(value: &Value) -> bool {
    match value.kind() {
        ValueKind::Undefined | ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Bytes => true,
        ValueKind::Iterable => value.len().is_some(),
        _ => false,
    }
}

/// Passes on what Python can iterate; an error for the rest ([`super::rewrite`]).
fn iterated(value: Value) -> Result<Value, Error> {
    check_clock()?;
    if is_iterable(&value) {
        return Ok(value);
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("a value of type {} is not iterable", value.kind())))
}

/// `a + b` where one may be a safe string, which makes the other one escaped ([`super::rewrite`]).
fn added(state: &State, a: Value, b: Value) -> Result<Value, Error> {
    let (Some(left), Some(right)) = (a.as_str(), b.as_str()) else {
        let sum = state.env().compile_expression("a + b")?;
        return sum.eval(Value::from_pairs([("a", a), ("b", b)]));
    };
    if left.len().saturating_add(right.len()) > limits::TEMPLATE_STRING_BYTES {
        return Err(over_limit(Limit::String));
    }
    if !a.is_safe() && !b.is_safe() {
        return Ok(Value::from(format!("{left}{right}")));
    }
    let escaped = |value: &Value, text: &str| if value.is_safe() { text.to_owned() } else { escape(text) };
    Ok(Value::from_safe_string(escaped(&a, left) + &escaped(&b, right)))
}

/// HTML escapes as Python's `markupsafe` writes them.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// `|escape`: a safe string, safe ones left as they are.
fn escaped(value: Value) -> Result<Value, Error> {
    if value.is_safe() {
        return Ok(value);
    }
    Ok(Value::from_safe_string(escape(&pystr::str_of(&value)?)))
}

/// A list as the generator that Python's filter makes: it can be iterated once and has no length.
fn generator(items: Vec<Value>) -> Value {
    Value::make_one_shot_iterator(items.into_iter())
}

/// `|join` with items as `str()` prints them.
fn join(state: &State, value: Value, separator: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let separator = match separator {
        Some(separator) => Some(separator),
        None => kwargs.get::<Option<Value>>("d")?,
    };
    let attribute = kwargs.get::<Option<String>>("attribute")?;
    kwargs.assert_all_used()?;
    let separator = separator.map_or(Ok(String::new()), |separator| pystr::str_of(&separator))?;
    let mut out = String::new();
    for (i, item) in iterated(value)?.try_iter()?.checked().enumerate() {
        let mut item = item?;
        for name in attribute.iter().flat_map(|path| path.split('.')) {
            item = item.get_item(&Value::from(name))?;
        }
        if i > 0 {
            out.push_str(&separator);
        }
        out.push_str(&pystr::str_of(&item)?);
        if out.len() > limits::TEMPLATE_STRING_BYTES {
            return Err(over_limit(Limit::String));
        }
        state.consume_fuel(1 + separator.len() as u64 / 64)?;
    }
    Ok(Value::from(out))
}
