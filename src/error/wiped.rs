//! Text that may contain a secret, in a buffer that is wiped when it is dropped.

use std::fmt::{self, Write};

use secrecy::zeroize::Zeroizing;

/// As `format!`, but the text ends where a `Display` of the arguments fails.
pub(crate) fn format(arguments: fmt::Arguments<'_>) -> Zeroizing<String> {
    let mut text = Wiped(Zeroizing::default());
    // What was written before an error is kept.
    let _ = text.write_fmt(arguments);
    text.0
}

/// A text that grows and leaves no copy of itself behind.
struct Wiped(Zeroizing<String>);

impl Write for Wiped {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let length = self.0.len() + more.len();
        if length > self.0.capacity() {
            // By hand: a `String` that grows by itself frees the old block unwiped.
            let mut larger = Zeroizing::new(String::with_capacity(length.next_power_of_two()));
            larger.push_str(&self.0);
            self.0 = larger;
        }
        self.0.push_str(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_text_is_complete_and_ends_at_an_error() {
        let long = "x".repeat(1000);
        assert_eq!(
            *format(format_args!("{}-{long}-{:?}", 7, "é")),
            format!("7-{long}-\"é\"")
        );
        assert_eq!(*format(format_args!("")), "");

        struct Failing;
        impl fmt::Display for Failing {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("before")?;
                Err(fmt::Error)
            }
        }
        assert_eq!(*format(format_args!("{Failing} and after")), "before");
    }
}
