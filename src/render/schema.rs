//! The JSON Schemas of what `--json` prints, generated from the types that are printed.

use schemars::{JsonSchema, generate::SchemaSettings};

/// The JSON Schema of what a `T` prints, without the final newline.
///
/// It is for those who read the document: fields that are left out where they are empty are optional.
#[must_use]
pub fn schema_text<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    format!("{:#}", schema.to_value())
}
