// SPDX-License-Identifier: Apache-2.0
//! What rhumb's own kinds have in common.

/// The group of rhumb's own kinds.
pub(crate) const GROUP: &str = "rhumb.io";

/// Gives an own kind its identity and its outer form: `apiVersion`, `kind`, `metadata`, and one part more, or a `spec`
/// of people's and a `status` beside.
///
/// The derived form of serde would not know `apiVersion` and `kind`, which stand in every object but in no field.
macro_rules! own_kind {
    ($type:ident, $plural:literal, $part:ident : $part_type:ty $(, $default:ident)? $(; $status:ident : $status_type:ty)?) => {
        impl k8s_openapi::Resource for $type {
            const API_VERSION: &'static str = "rhumb.io/v1alpha1";
            const GROUP: &'static str = $crate::own::GROUP;
            const KIND: &'static str = stringify!($type);
            const VERSION: &'static str = "v1alpha1";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::ClusterResourceScope;
        }

        impl k8s_openapi::Metadata for $type {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }

        const _: () = {
            #[derive(serde::Serialize)]
            #[serde(rename_all = "camelCase")]
            struct Written<'a> {
                api_version: &'static str,
                kind: &'static str,
                metadata: &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
                $part: &'a $part_type,
                $(
                    #[serde(skip_serializing_if = "Option::is_none")]
                    $status: Option<&'a $status_type>,
                )?
            }

            #[derive(serde::Deserialize)]
            #[serde(rename_all = "camelCase", deny_unknown_fields)]
            struct Read {
                api_version: String,
                kind: String,
                metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
                $(#[serde($default)])?
                $part: $part_type,
                $(
                    #[serde(default)]
                    $status: $status_type,
                )?
            }

            impl serde::Serialize for $type {
                fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    let written = Written {
                        api_version: <$type as k8s_openapi::Resource>::API_VERSION,
                        kind: <$type as k8s_openapi::Resource>::KIND,
                        metadata: &self.metadata,
                        $part: &self.$part,
                        // One that says nothing is not there, as in a file that a person wrote.
                        $($status: Some(&self.$status).filter(|status| **status != <$status_type>::default()),)?
                    };
                    written.serialize(serializer)
                }
            }

            impl<'de> serde::Deserialize<'de> for $type {
                fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    use serde::de::{Error, Unexpected};
                    let read = Read::deserialize(deserializer)?;
                    let (version, kind) =
                        (<$type as k8s_openapi::Resource>::API_VERSION, <$type as k8s_openapi::Resource>::KIND);
                    if read.api_version != version {
                        return Err(D::Error::invalid_value(Unexpected::Str(&read.api_version), &version));
                    }
                    if read.kind != kind {
                        return Err(D::Error::invalid_value(Unexpected::Str(&read.kind), &kind));
                    }
                    Ok(Self { metadata: read.metadata, $part: read.$part $(, $status: read.$status)? })
                }
            }
        };
    };
}
pub(crate) use own_kind;

/// Metadata with nothing but a name.
pub(crate) fn named(name: impl Into<String>) -> k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some(name.into()),
        ..Default::default()
    }
}
