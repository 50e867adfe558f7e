//! The JSON Schemas of what `--json` prints, generated from the types that are printed.

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{ComparisonReport, Report};

/// The JSON Schema of `hostgw plan --json`, as `schemas/plan.schema.json` holds it, without the final newline.
#[must_use]
pub fn plan_schema() -> String {
    text::<Report>()
}

/// The JSON Schema of `hostgw diff --json`, as `schemas/diff.schema.json` holds it, without the final newline.
#[must_use]
pub fn comparison_schema() -> String {
    text::<ComparisonReport>()
}

/// For those who read what is printed, fields that are left out where they are empty are optional.
fn text<T: JsonSchema>() -> String {
    let schema = SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>();
    format!("{:#}", schema.to_value())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_in_the_repository_are_current() {
        for (name, current) in [("plan", plan_schema()), ("diff", comparison_schema())] {
            let path = format!("{}/schemas/{name}.schema.json", env!("CARGO_MANIFEST_DIR"));
            let current = format!("{current}\n");
            if std::env::var_os("HOSTGW_BLESS").is_some() {
                std::fs::write(&path, &current).expect("the folder schemas can be written");
            }
            let stored = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(stored == current, "{path} differs from the types: hostgw schema {name} >{path}");
        }
    }
}
