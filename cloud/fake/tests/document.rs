// SPDX-License-Identifier: Apache-2.0
//! The example in `docs/reference/fake-ec2.md` is a configuration, and its settings are those that hold without it.

use rhumb_cloud_fake::{Config, Settings};
use rhumb_model::Timestamp;

const DOCUMENT: &str = include_str!("../../../docs/reference/fake-ec2.md");

#[test]
fn the_example_builds_a_world_and_tells_the_usual_settings() {
    let (_, after) = DOCUMENT.split_once("```yaml\n").expect("the document has an example");
    let (example, _) = after.split_once("```").expect("the example ends");
    let config: Config = serde_yaml_ng::from_str(example).expect("a configuration");
    assert_eq!(config.settings, Settings::default());
    config.build(Timestamp(1_000)).expect("a world");
}
