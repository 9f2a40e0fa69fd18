//! Whether a text shows a piece of a secret.

use secrecy::zeroize::Zeroizing;

/// A piece of a secret of this length must not be printed.
const TELLING_PIECE: usize = 5;

/// Whether `text` repeats a piece of one of `secrets`, or all of a short one: as it is, or in other case, with escapes,
/// blanks or line breaks in it.
pub(super) fn repeats_any(text: &str, secrets: &[&str]) -> bool {
    let folded_text = folded(text);
    secrets.iter().any(|secret| {
        if secret.len() < TELLING_PIECE {
            return !secret.is_empty() && text.contains(secret);
        }
        shares_a_piece(text, secret) || shares_a_piece(&folded_text, &folded(secret))
    })
}

/// Whether a character of a text may be printed: it can be seen and breaks no line. One that cannot be seen could stand
/// between the pieces of a secret, or turn them round.
pub(super) fn is_shown(c: char) -> bool {
    !c.is_control() && !is_invisible(c)
}

/// Unicode's `Default_Ignorable_Code_Point`s, the separators of lines and paragraphs, and interlinear annotations.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{AD}'
            | '\u{34F}'
            | '\u{61C}'
            | '\u{115F}'..='\u{1160}'
            | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}'
            | '\u{200B}'..='\u{200F}'
            | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}'
            | '\u{3164}'
            | '\u{FE00}'..='\u{FE0F}'
            | '\u{FEFF}'
            | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}'
            | '\u{1D173}'..='\u{1D17A}'
            | '\u{E0000}'..='\u{E0FFF}'
    )
}

fn shares_a_piece(text: &str, secret: &str) -> bool {
    let mut pieces = secret.as_bytes().windows(TELLING_PIECE);
    pieces.any(|piece| text.as_bytes().windows(TELLING_PIECE).any(|other| other == piece))
}

/// The letters and digits of a text, ASCII in lower case.
fn folded(text: &str) -> Zeroizing<String> {
    // It never grows, so that no copy is left behind.
    let mut folded = Zeroizing::new(String::with_capacity(text.len()));
    folded.extend(text.chars().filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase()));
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_61_five_characters_in_a_row_are_a_piece() {
        assert!(repeats_any("no customer has the key qwert-9981", &["qwert-9981"]));
        assert!(repeats_any("a piece: wert-", &["qwert-9981"]));
        assert!(!repeats_any("less: wert", &["qwert-9981"]));
        assert!(!repeats_any("anything", &["qwert-9981", ""]));
    }

    #[test]
    fn case_61_neither_case_nor_escapes_nor_breaks_hide_a_piece() {
        for text in ["QWERT-9981", r#"q\"we\"rt"#, "qw er\tt", "q\u{200b}we\u{ad}rt", "qwe\n  rt"] {
            assert!(repeats_any(text, &["q\"we\"rt-9981"]), "{text}");
        }
        assert!(repeats_any("the key !-!-! is unknown", &["!-!-!-!"]));
    }

    #[test]
    fn case_61_of_a_short_secret_the_whole_is_a_piece() {
        assert!(repeats_any("the key is x-1", &["x-1"]));
        assert!(!repeats_any("the key is x 1", &["x-1"]));
        // From five characters on it is one in any case.
        assert!(repeats_any("the key is XYZ12", &["xyz12"]));
        assert!(!repeats_any("the key is XYZ1", &["xyz1"]));
    }
}
