//! Our entry in IAB's Global Vendor List: for what we have registered, and on which grounds.

use super::purposes::Purposes;

/// What a vendor has registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration {
    /// Purposes for which it asks for consent.
    pub consent: Purposes,
    /// Purposes for which it claims legitimate interest.
    pub legitimate_interest: Purposes,
    /// Purposes for which it takes the other ground where a publisher wants that.
    pub flexible: Purposes,
}

/// Why a vendor list is of no use.
#[derive(Debug, thiserror::Error)]
pub enum VendorListError {
    /// Not the JSON of a vendor list.
    #[error("it is not a Global Vendor List in JSON: {0}")]
    NotAList(#[from] serde_json::Error),
    /// There is no such vendor, or no longer.
    #[error(
        "it has no vendor {0}, or that vendor was deleted: mend privacy.vendor_id, or fetch a newer list"
    )]
    NoVendor(u16),
}

#[derive(serde::Deserialize)]
struct List {
    vendors: std::collections::BTreeMap<String, Vendor>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vendor {
    #[serde(default)]
    purposes: Vec<u8>,
    #[serde(default)]
    leg_int_purposes: Vec<u8>,
    #[serde(default)]
    flexible_purposes: Vec<u8>,
    #[serde(default)]
    deleted_date: Option<String>,
}

impl Registration {
    /// A vendor's entry in a list (`vendor-list.json`, versions 2 and 3 of its format).
    pub fn in_list(list: &[u8], vendor: u16) -> Result<Self, VendorListError> {
        let list: List = serde_json::from_slice(list)?;
        let entry = list
            .vendors
            .get(&vendor.to_string())
            .filter(|entry| entry.deleted_date.is_none())
            .ok_or(VendorListError::NoVendor(vendor))?;
        Ok(Self {
            consent: Purposes::of(&entry.purposes),
            legitimate_interest: Purposes::of(&entry.leg_int_purposes),
            flexible: Purposes::of(&entry.flexible_purposes),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vendor_is_found_or_the_reason_told() {
        let list = br#"{"gvlSpecificationVersion":3,"vendorListVersion":2,"vendors":{
            "7":{"id":7,"name":"x","purposes":[1,3],"legIntPurposes":[2],"flexiblePurposes":[2],"features":[1]},
            "8":{"id":8,"purposes":[1],"deletedDate":"2025-01-01T00:00:00Z"}}}"#;
        let entry = Registration::in_list(list, 7).expect("there");
        assert_eq!(entry.consent, Purposes::of(&[1, 3]));
        assert_eq!(entry.legitimate_interest, Purposes::of(&[2]));
        assert_eq!(entry.flexible, Purposes::of(&[2]));
        for gone in [8, 9] {
            let refused = Registration::in_list(list, gone).expect_err("gone");
            assert!(refused.to_string().contains(&format!("no vendor {gone}")));
        }
        assert!(Registration::in_list(b"<html>", 7).is_err());
    }
}
