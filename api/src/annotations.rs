// SPDX-License-Identifier: Apache-2.0
//! What people ask for in the annotations of pods.

use std::net::IpAddr;

use rhumb_model::Family;

use crate::{Kind, Pod};

/// Annotation that asks for addresses: a list separated by commas, at most one of each family.
pub const ADDRESSES: &str = "rhumb.io/addresses";

/// Annotation that asks that the pod's addresses stay with its name: `"true"` or `"false"`.
pub const STICKY_ADDRESSES: &str = "rhumb.io/sticky-addresses";

/// What a pod asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodAddressing {
    /// Addresses that it wants, at most one of each family.
    pub requested: Vec<IpAddr>,
    /// Whether it wants the same addresses when it is made anew under the same name.
    pub sticky: bool,
}

impl PodAddressing {
    /// The address of one family that the pod wants, if it names one.
    pub fn requested(&self, family: Family) -> Option<IpAddr> {
        self.requested.iter().copied().find(|addr| Family::of(*addr) == family)
    }
}

/// An annotation that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// A part of the list is no address.
    #[error("annotation {ADDRESSES}: {value:?} is no IP address; want a list such as 10.42.1.7,fd00:42::7")]
    Address {
        /// The part.
        value: String,
    },
    /// Two addresses of one family.
    #[error(
        "annotation {ADDRESSES}: {first} and {second} are both {family}; a pod has one address of each family"
    )]
    TwoOfFamily {
        /// The family.
        family: Family,
        /// The first of them.
        first: IpAddr,
        /// The second of them.
        second: IpAddr,
    },
    /// Neither `true` nor `false`.
    #[error("annotation {STICKY_ADDRESSES}: want \"true\" or \"false\", not {value:?}")]
    Sticky {
        /// What stands there.
        value: String,
    },
}

/// Reads what a pod asks for.
///
/// # Errors
/// [`AnnotationError`] names the annotation and what is wrong with it.
pub fn pod_addressing(pod: &Pod) -> Result<PodAddressing, AnnotationError> {
    let mut wanted = PodAddressing::default();
    for part in pod.annotation(ADDRESSES).into_iter().flat_map(|list| list.split(',')) {
        let value = part.trim();
        let second: IpAddr =
            value.parse().map_err(|_| AnnotationError::Address { value: value.to_owned() })?;
        let family = Family::of(second);
        if let Some(first) = wanted.requested(family) {
            return Err(AnnotationError::TwoOfFamily { family, first, second });
        }
        wanted.requested.push(second);
    }
    wanted.sticky = match pod.annotation(STICKY_ADDRESSES) {
        None | Some("false") => false,
        Some("true") => true,
        Some(value) => return Err(AnnotationError::Sticky { value: value.to_owned() }),
    };
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> Result<PodAddressing, AnnotationError> {
        let mut pod = Pod::default();
        let pairs = annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        pod.metadata.annotations = Some(pairs.collect());
        pod_addressing(&pod)
    }

    #[test]
    fn a_pod_without_annotations_asks_for_nothing() {
        assert_eq!(pod_addressing(&Pod::default()), Ok(PodAddressing::default()));
    }

    #[test]
    fn addresses_of_both_families_are_read() {
        let wanted =
            read(&[(ADDRESSES, "10.42.1.7, fd00:42::7"), (STICKY_ADDRESSES, "true")]).expect("valid");
        assert_eq!(wanted.requested(Family::V4), Some("10.42.1.7".parse().expect("valid")));
        assert_eq!(wanted.requested(Family::V6), Some("fd00:42::7".parse().expect("valid")));
        assert!(wanted.sticky);
    }

    #[test]
    fn a_refusal_names_the_annotation_and_the_value() {
        let cases = [
            (ADDRESSES, "10.42.1", "\"10.42.1\" is no IP address"),
            (ADDRESSES, "10.42.1.7,", "\"\" is no IP address"),
            (ADDRESSES, "10.42.1.7,10.42.1.8", "10.42.1.7 and 10.42.1.8 are both ipv4"),
            (STICKY_ADDRESSES, "yes", "want \"true\" or \"false\", not \"yes\""),
        ];
        for (name, value, text) in cases {
            let error = read(&[(name, value)]).expect_err(value).to_string();
            assert!(error.starts_with(&format!("annotation {name}: ")) && error.contains(text), "{error}");
        }
    }
}
