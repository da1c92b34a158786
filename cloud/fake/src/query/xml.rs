// SPDX-License-Identifier: Apache-2.0
//! XML as EC2 writes it: elements and text, no attributes but the name space of the root.

use std::fmt::Display;

/// A document that is written from top to bottom.
#[derive(Debug)]
pub(super) struct Xml {
    text: String,
}

impl Xml {
    pub(super) fn document(root: &str, space: Option<&str>, content: impl FnOnce(&mut Self)) -> String {
        let mut xml = Self { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned() };
        let space = space.map(|space| format!(" xmlns=\"{space}\"")).unwrap_or_default();
        xml.text += &format!("<{root}{space}>");
        content(&mut xml);
        xml.text += &format!("</{root}>");
        xml.text
    }

    /// An element with others inside.
    pub(super) fn part(&mut self, name: &str, content: impl FnOnce(&mut Self)) {
        self.text += &format!("<{name}>");
        content(self);
        self.text += &format!("</{name}>");
    }

    /// An element with text.
    pub(super) fn leaf(&mut self, name: &str, value: impl Display) {
        self.text += &format!("<{name}>");
        for character in value.to_string().chars() {
            match character {
                '&' => self.text.push_str("&amp;"),
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '"' => self.text.push_str("&quot;"),
                // XML 1.0 has no way to write other control characters.
                '\t' | '\n' | '\r' => self.text += &format!("&#{};", u32::from(character)),
                control if control.is_control() => self.text.push('\u{fffd}'),
                plain => self.text.push(plain),
            }
        }
        self.text += &format!("</{name}>");
    }

    pub(super) fn maybe(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.leaf(name, value);
        }
    }

    /// A list: every member an `item`.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        mut content: impl FnMut(&mut Self, T),
    ) {
        self.part(name, |xml| {
            for item in items {
                xml.part("item", |xml| content(xml, item));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_and_lists_have_items() {
        let xml = Xml::document("Reply", Some("urn:x"), |xml| {
            xml.leaf("a", "<&>\"\n\u{1}");
            xml.list("set", [1, 2], |xml, number| xml.leaf("n", number));
            xml.maybe("none", None::<u8>);
        });
        let body = xml.split_once('\n').expect("a declaration").1;
        assert_eq!(
            body,
            "<Reply xmlns=\"urn:x\"><a>&lt;&amp;&gt;&quot;&#10;\u{fffd}</a>\
             <set><item><n>1</n></item><item><n>2</n></item></set></Reply>"
        );
    }
}
