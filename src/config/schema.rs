//! The JSON Schema of the file format, generated from the types that read it.

use super::raw::RawConfig;

/// The JSON Schema of a configuration.
#[must_use]
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(RawConfig).to_value()
}

/// The JSON Schema as `schemas/config.schema.json` holds it, without the final newline.
#[must_use]
pub fn schema_text() -> String {
    format!("{:#}", schema())
}

#[cfg(test)]
mod tests {
    use super::schema_text;

    #[test]
    fn the_schema_in_the_repository_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/config.schema.json");
        let current = format!("{}\n", schema_text());
        if std::env::var_os("HOSTGW_BLESS").is_some() {
            std::fs::write(path, &current).expect("schemas/config.schema.json can be written");
        }
        let stored = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            stored == current,
            "schemas/config.schema.json differs from the types: hostgw schema > schemas/config.schema.json"
        );
    }
}
