//! Texts with `*` in them.

/// A text to match others against, in which `*` stands for anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<[u8]>);

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Self {
        Self(text.as_bytes().into())
    }

    /// Whether a text matches. Time by the product of both lengths at worst.
    pub fn matches(&self, text: &[u8]) -> bool {
        // As most are written that are held against long texts.
        if let [b'*', end @ ..] = &*self.0
            && !end.contains(&b'*')
        {
            return text.ends_with(end);
        }
        let (mut pattern, mut rest): (&[u8], &[u8]) = (&self.0, text);
        // Where to go on if what was read as literal turns out wrong: behind the last star, one byte further.
        let mut again: Option<(&[u8], &[u8])> = None;
        loop {
            match (pattern.split_first(), rest.split_first()) {
                (Some((b'*', after)), _) => {
                    again = Some((after, rest));
                    pattern = after;
                }
                (Some((wanted, after)), Some((byte, behind))) if wanted == byte => (pattern, rest) = (after, behind),
                (None, None) => return true,
                _ => match again.and_then(|(after, from)| Some((after, from.split_first()?.1))) {
                    Some((after, from)) => {
                        again = Some((after, from));
                        (pattern, rest) = (after, from);
                    }
                    None => return false,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, text, expected) in [
            ("payments", "payments", true),
            ("payments", "payments2", false),
            ("*", "", true),
            ("pay*", "payments", true),
            ("*.internal", "a.b.internal", true),
            ("*.internal", "a.internal.b", false),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("", "x", false),
            ("**", "x", true),
            ("*b", "b", true),
            ("*b", "", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
