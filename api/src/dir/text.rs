// SPDX-License-Identifier: Apache-2.0
//! A file as text: where its documents are, and how one of them is replaced without touching the others.

use std::ops::Range;

/// One document of a file, with the `---` line that begins it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// Where it stands, in bytes.
    pub(super) range: Range<usize>,
    /// Lines of the file before it.
    pub(super) line: usize,
}

/// Cuts a file into documents. Parts with nothing but blank lines, comments and directives are no documents.
///
/// A line that begins with `---` and a blank or its end always begins a document (YAML 1.2.2, section 9.1.2), so the
/// text need not be understood: a document that is no YAML leaves the others readable.
pub(super) fn sections(text: &str) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut start = 0;
    let mut first_line = 0;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line) && at > start {
            sections.push(Section { range: start..at, line: first_line });
            (start, first_line) = (at, number);
        }
        at += line.len();
    }
    sections.push(Section { range: start..at, line: first_line });
    sections.retain(|section| holds_content(&text[section.range.clone()]));
    sections
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// The lines of a document that say something.
fn holds_content(text: &str) -> bool {
    text.lines().enumerate().any(|(i, line)| {
        let line = if i == 0 { line.trim_start_matches('\u{feff}') } else { line };
        let line = if is_marker(line) { &line[3..] } else { line };
        let is_note = is_comment(line.trim_start()) || (line.starts_with('%') && is_one_line(line));
        !(line.trim().is_empty() || line.trim() == "..." || is_note)
    })
}

/// The file with `document` (which ends with a line end) in place of a section. Comments above and below stay.
pub(super) fn replace(text: &str, section: &Section, document: &str) -> String {
    let old = &text[section.range.clone()];
    let mut new = String::with_capacity(text.len() + document.len());
    new.push_str(&text[..section.range.start]);
    let mut lines = old.split_inclusive('\n').peekable();
    if let Some(marker) = lines.next_if(|line| is_marker(line)) {
        // What stands behind the marker is part of the old document, unless it is a comment.
        let rest = marker[3..].trim();
        new.push_str(if rest.is_empty() || is_comment(rest) { marker } else { "---\n" });
    }
    while let Some(comment) = lines.next_if(|line| is_comment(line)) {
        new.push_str(comment);
    }
    new.push_str(document);
    let tail: Vec<&str> = lines.collect();
    let kept = tail.iter().rev().take_while(|line| is_comment(line) || line.trim().is_empty()).count();
    // Blank lines above the comments could belong to the value before them.
    let comments = tail[tail.len() - kept..].iter().skip_while(|line| line.trim().is_empty());
    comments.for_each(|line| new.push_str(line));
    if section.range.end < text.len() && !new.ends_with('\n') {
        new.push('\n');
    }
    new.push_str(&text[section.range.end..]);
    new
}

fn is_comment(line: &str) -> bool {
    line.starts_with('#') && is_one_line(line)
}

/// Whether a line is one to YAML 1.1 too, which ends lines in more ways than we do.
fn is_one_line(line: &str) -> bool {
    !line.trim_end_matches(['\r', '\n']).contains(['\r', '\u{85}', '\u{2028}', '\u{2029}'])
}

/// The file without a section.
pub(super) fn remove(text: &str, section: &Section) -> String {
    let mut new = String::with_capacity(text.len());
    new.push_str(&text[..section.range.start]);
    new.push_str(&text[section.range.end..]);
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(file: &str) -> Vec<(usize, &str)> {
        sections(file).into_iter().map(|section| (section.line, &file[section.range])).collect()
    }

    #[test]
    fn documents_are_cut_at_markers_only() {
        assert_eq!(
            texts("a: 1\n---\nb: |\n  ---\n  x\n--- {c: 1}\n---x: 1\n"),
            [(0, "a: 1\n"), (1, "---\nb: |\n  ---\n  x\n"), (5, "--- {c: 1}\n---x: 1\n"),]
        );
    }

    #[test]
    fn parts_without_content_are_no_documents() {
        assert_eq!(texts("\u{feff}# head\n%YAML 1.2\n---\r\n# note\n---\n...\n--- # last\n"), []);
        assert_eq!(texts("# head\n---\na: 1"), [(1, "---\na: 1")]);
    }

    #[test]
    fn what_yaml_takes_for_several_lines_is_no_comment() {
        for file in ["# x\ra: 1\n", "# x\u{85}a: 1\n", "%x\u{2028}a: 1\n"] {
            assert_eq!(texts(file), [(0, file)]);
            assert_eq!(replace(file, &sections(file)[0], "b: 1\n"), "b: 1\n");
        }
    }

    #[test]
    fn a_replaced_document_leaves_comments_and_neighbours() {
        let file = "# first\na: 1\n\n--- # second\n# about b\nb: # inner\n  c: 1\n\n# tail\n---\nd: 1";
        let parts = sections(file);
        assert_eq!(
            replace(file, &parts[1], "b: 2\n"),
            "# first\na: 1\n\n--- # second\n# about b\nb: 2\n# tail\n---\nd: 1"
        );
        assert_eq!(replace(file, &parts[2], "d: 2\n"), file.replace("d: 1", "d: 2\n"));
        assert_eq!(remove(file, &parts[1]), "# first\na: 1\n\n---\nd: 1");
    }

    proptest! {
        #[test]
        fn sections_never_overlap_and_carry_their_line(file in "(---|[ \n#a:.\r]|\u{e4}){0,40}") {
            let mut end = 0;
            for section in sections(&file) {
                prop_assert!(section.range.start >= end);
                end = section.range.end;
                prop_assert_eq!(file[..section.range.start].matches('\n').count(), section.line);
            }
        }

        #[test]
        fn replacing_keeps_the_number_of_documents(file in "(---\n|[#a]: 1\n|# x\n|\n){1,12}", pick: usize) {
            let parts = sections(&file);
            prop_assume!(!parts.is_empty());
            let pick = pick % parts.len();
            let new = replace(&file, &parts[pick], "z: 1\n");
            let after = sections(&new);
            prop_assert_eq!(after.len(), parts.len());
            for (i, (old, new_part)) in parts.iter().zip(&after).enumerate() {
                if i != pick {
                    prop_assert_eq!(&file[old.range.clone()], &new[new_part.range.clone()]);
                }
            }
        }
    }
}
