//! Generates the JSON Schemas of the `--json` output from its types.

use schemars::{JsonSchema, generate::SchemaSettings};

/// Returns the JSON Schema of the output type `T`, without a final newline.
///
/// It describes documents as hostgw prints them: fields that are omitted when empty are optional.
#[must_use]
pub fn schema_text<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    format!("{:#}", schema.to_value())
}
