// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use super::Asn;

/// One segment of an AS path (RFC 4271 §4.3); never empty when it came from the wire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// Systems in the order in which the route is followed.
    Sequence(Vec<Asn>),
    /// Systems without order, of an aggregate; deprecated by RFC 9774.
    Set(Vec<Asn>),
}

impl Segment {
    /// The systems, in the order of the wire.
    pub fn systems(&self) -> &[Asn] {
        match self {
            Segment::Sequence(systems) | Segment::Set(systems) => systems,
        }
    }
}

/// The systems a route came through, the nearest first (RFC 4271 §5.1.2); empty for a route of the own AS.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath(pub Vec<Segment>);

impl AsPath {
    /// How many systems a segment holds on the wire (RFC 4271 §4.3: its length is one octet).
    pub(super) const SEGMENT: usize = 255;

    /// A path of one sequence; the empty path for no systems.
    pub fn sequence(systems: impl IntoIterator<Item = Asn>) -> Self {
        let systems: Vec<Asn> = systems.into_iter().collect();
        let segments = systems.chunks(Self::SEGMENT).map(|chunk| Segment::Sequence(chunk.to_vec()));
        AsPath(segments.collect())
    }

    /// Length for the comparison of routes: a set counts as one system (RFC 4271 §9.1.2.2 a).
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length for comparison; emptiness has its own name, is_local"
    )]
    pub fn len(&self) -> usize {
        let length = |segment: &Segment| match segment {
            Segment::Sequence(systems) => systems.len(),
            Segment::Set(_) => 1,
        };
        self.0.iter().map(length).sum()
    }

    /// Whether the path is empty: the route began in the own AS.
    pub fn is_local(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the system occurs anywhere in the path (RFC 4271 §9.1.2: such a route is a loop).
    pub fn contains(&self, asn: Asn) -> bool {
        self.systems().any(|system| system == asn)
    }

    /// All systems, nearest first, those of sets among them.
    pub fn systems(&self) -> impl Iterator<Item = Asn> {
        self.0.iter().flat_map(|segment| segment.systems().iter().copied())
    }

    /// Whether there is a set in the path; such routes are neither sent nor taken (RFC 9774 §3).
    pub fn has_set(&self) -> bool {
        self.0.iter().any(|segment| matches!(segment, Segment::Set(_)))
    }

    /// The leftmost system, if the path starts with a sequence: the neighbour that sent the route
    /// (RFC 4271 §6.3; basis of the comparison of MED, §9.1.2.2 c).
    pub fn first(&self) -> Option<Asn> {
        match self.0.first()? {
            Segment::Sequence(systems) => systems.first().copied(),
            Segment::Set(_) => None,
        }
    }

    /// The neighbouring system of a route: [`AsPath::first`], or the own AS for an empty path (RFC 4271 §9.1.2.2 c).
    pub fn neighbour(&self, own: Asn) -> Asn {
        self.first().unwrap_or(own)
    }

    /// The system that began the route: the rightmost of a path that ends with a sequence.
    pub fn origin(&self) -> Option<Asn> {
        match self.0.last()? {
            Segment::Sequence(systems) => systems.last().copied(),
            Segment::Set(_) => None,
        }
    }

    /// The path with `asn` in front, `times` over (RFC 4271 §5.1.2 b); a full segment is followed by a new one.
    pub fn prepend(&self, asn: Asn, times: usize) -> Self {
        let mut segments = self.0.clone();
        for _ in 0..times {
            match segments.first_mut() {
                Some(Segment::Sequence(systems)) if systems.len() < Self::SEGMENT => systems.insert(0, asn),
                Some(Segment::Sequence(_) | Segment::Set(_)) | None => {
                    segments.insert(0, Segment::Sequence(vec![asn]));
                }
            }
        }
        AsPath(segments)
    }
}

/// `65001 65002 {65003 65004}`.
impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self
            .0
            .iter()
            .map(|segment| {
                let systems: Vec<String> = segment.systems().iter().map(Asn::to_string).collect();
                match segment {
                    Segment::Sequence(_) => systems.join(" "),
                    Segment::Set(_) => format!("{{{}}}", systems.join(" ")),
                }
            })
            .collect();
        f.write_str(&texts.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixed() -> AsPath {
        AsPath(vec![Segment::Sequence(vec![Asn(1), Asn(2)]), Segment::Set(vec![Asn(3), Asn(4)])])
    }

    #[test]
    fn a_set_counts_as_one_system() {
        assert_eq!(mixed().len(), 3);
        assert_eq!(AsPath::default().len(), 0);
        assert!(mixed().contains(Asn(4)) && !mixed().contains(Asn(5)));
    }

    #[test]
    fn prepending_goes_in_front_and_keeps_segments_within_255() {
        let path = AsPath::sequence((1..=254).map(Asn)).prepend(Asn(7), 3);
        assert_eq!(path.0.iter().map(|segment| segment.systems().len()).collect::<Vec<_>>(), [2, 255]);
        assert_eq!((path.len(), path.first(), path.origin()), (257, Some(Asn(7)), Some(Asn(254))));
        assert_eq!(AsPath(vec![Segment::Set(vec![Asn(3)])]).prepend(Asn(1), 1).to_string(), "1 {3}");
        assert_eq!(mixed().prepend(Asn(9), 0), mixed());
    }

    #[test]
    fn the_neighbour_of_an_empty_path_is_the_own_system() {
        assert_eq!(AsPath::default().neighbour(Asn(65000)), Asn(65000));
        assert_eq!(mixed().neighbour(Asn(65000)), Asn(1));
        assert_eq!((mixed().first(), mixed().origin()), (Some(Asn(1)), None));
    }
}
