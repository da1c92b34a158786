// SPDX-License-Identifier: Apache-2.0
//! The patterns that case files use: `^[a-z][a-z0-9]*$` for names, `prefix*` for keys and paths.

/// Whether `text` has the form of `pattern`: literal characters, classes in brackets, `.`, each followed by `*`, `+`
/// or `?` where it may come again or stay away; the whole text is compared.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let pattern = pattern.strip_suffix('$').unwrap_or(pattern);
    let atoms = atoms(&pattern.chars().collect::<Vec<_>>());
    from(&atoms, &text.chars().collect::<Vec<_>>())
}

/// Whether `text` is `pattern`, where a `*` stands for any characters.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len())
                .filter(|at| rest.is_char_boundary(*at))
                .any(|at| rest.get(at..).is_some_and(|rest| glob(after, rest)))
        }),
    }
}

struct Atom {
    ranges: Option<Vec<(char, char)>>,
    least: usize,
    most: usize,
}

impl Atom {
    fn admits(&self, c: char) -> bool {
        self.ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)))
    }
}

fn atoms(mut pattern: &[char]) -> Vec<Atom> {
    let mut atoms = Vec::new();
    while let Some((first, mut rest)) = pattern.split_first() {
        let ranges = match first {
            '[' => {
                let end = rest.iter().position(|c| *c == ']').unwrap_or(rest.len());
                let (class, tail) = rest.split_at(end);
                rest = tail.get(1..).unwrap_or_default();
                Some(ranges(class))
            }
            '.' => None,
            '\\' => match rest.split_first() {
                Some((escaped, tail)) => {
                    rest = tail;
                    Some(vec![(*escaped, *escaped)])
                }
                None => Some(Vec::new()),
            },
            literal => Some(vec![(*literal, *literal)]),
        };
        let (least, most) = match rest.first() {
            Some('*') => (0, usize::MAX),
            Some('+') => (1, usize::MAX),
            Some('?') => (0, 1),
            Some(_) | None => (1, 1),
        };
        if (least, most) != (1, 1) {
            rest = &rest[1..];
        }
        atoms.push(Atom { ranges, least, most });
        pattern = rest;
    }
    atoms
}

fn ranges(mut class: &[char]) -> Vec<(char, char)> {
    let mut ranges = Vec::new();
    while let Some((first, rest)) = class.split_first() {
        match rest {
            ['-', high, tail @ ..] => {
                ranges.push((*first, *high));
                class = tail;
            }
            _ => {
                ranges.push((*first, *first));
                class = rest;
            }
        }
    }
    ranges
}

fn from(atoms: &[Atom], text: &[char]) -> bool {
    let Some((atom, rest)) = atoms.split_first() else { return text.is_empty() };
    let run = text.iter().take(atom.most).take_while(|c| atom.admits(**c)).count();
    (atom.least..=run).rev().any(|taken| from(rest, &text[taken..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_networks_are_matched() {
        let name = "^[a-zA-Z0-9][a-zA-Z0-9_.-]*$";
        for good in ["rhumb", "a", "0.x_y-z"] {
            assert!(matches(name, good), "{good}");
        }
        for bad in ["", "-a", "a b", "a/b"] {
            assert!(!matches(name, bad), "{bad}");
        }
    }

    #[test]
    fn repetition_gives_back_what_the_rest_needs() {
        assert!(matches("a*ab", "aaab"));
        assert!(matches(r"x\.y+z?", "x.yy"));
        assert!(!matches(r"x\.y+z?", "x_yy"));
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(glob("cni.dev/*", "cni.dev/attachments"));
        assert!(glob("/etc/cni/net.d/*.conflist", "/etc/cni/net.d/05-rhumb.conflist"));
        assert!(!glob("cni.dev/*", "cni"));
    }
}
