//! Builds HTML so that nothing from outside can become markup.
//!
//! Only text of this program is written as it is: [`Markup::raw`] takes nothing but literals. All else is escaped.

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Markup {
    page: String,
}

impl Markup {
    /// Markup of this program's own.
    pub(super) fn raw(&mut self, literal: &'static str) -> &mut Self {
        self.page.push_str(literal);
        self
    }

    /// Text, which means itself whatever it is.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.page.push_str("&amp;"),
                '<' => self.page.push_str("&lt;"),
                '>' => self.page.push_str("&gt;"),
                '"' => self.page.push_str("&quot;"),
                '\'' => self.page.push_str("&#39;"),
                '`' => self.page.push_str("&#96;"),
                '\n' | '\t' => self.page.push(c),
                _ if c.is_control() || turns_text(c) => self.page.push('\u{fffd}'),
                _ => self.page.push(c),
            }
        }
        self
    }

    /// An attribute of the tag that is open, with a space in front.
    pub(super) fn attribute(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.page.push(' ');
        self.page.push_str(name);
        self.page.push_str("=\"");
        self.text(value);
        self.page.push('"');
        self
    }

    /// An element of this kind that holds text alone; `open` is its opening tag.
    pub(super) fn element(&mut self, open: &'static str, text: &str, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    pub(super) fn finish(self) -> String {
        self.page
    }
}

/// Characters that show text in another order than it has: a name could pass for another one.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let mut markup = Markup::default();
        let hostile = "</script><img src=x onerror='alert(`1`)'>\" &amp; \u{202e}\u{7}\0\n";
        markup.raw("<p").attribute("title", hostile).raw(">").text(hostile).raw("</p>");
        let page = markup.finish();
        assert_eq!(page.matches('<').count(), 2);
        assert_eq!(page.matches('"').count(), 2);
        assert!(!page.contains(['\'', '`', '\u{202e}', '\u{7}', '\0']));
        assert!(page.contains("&amp;amp; \u{fffd}\u{fffd}\u{fffd}\n"));
    }
}
