//! What the Digital Services Act has an ad say of who pays for it (IAB Tech Lab, "DSA Transparency Extensions"): an
//! advertiser's `dsa`, ready to be written as the bid's `ext.dsa`.

use super::super::Transparency;
use super::super::document::Fields;
use super::Work;
use crate::openrtb::transparency_part;

/// Most entries of `transparency`, and of each one's `dsaparams`.
const ENTRIES_MAX: usize = 64;
/// Longest name of who pays, as the extension has it.
const NAME_BYTES_MAX: usize = 100;

impl Work {
    pub(super) fn dsa(&mut self, advertiser: &Fields<'_>) -> Option<Transparency> {
        let node = advertiser.get("dsa")?;
        let known = ["behalf", "paid", "adrender", "transparency"];
        let path = advertiser.at("dsa");
        let fields = Fields::open(node, path, advertiser.id(), &known, &mut self.errors)?;
        fields.required("behalf", "\"Acme Ltd\"", &mut self.errors);
        fields.required("paid", "\"Acme Ltd\"", &mut self.errors);
        let mut name = |key: &str| {
            let text = fields.text(key, &mut self.errors).unwrap_or("");
            if text.len() > NAME_BYTES_MAX || fields.get(key).is_some() && text.trim().is_empty() {
                let message = format!("expected a name of 1 to {NAME_BYTES_MAX} bytes");
                fields.wrong(key, message, &mut self.errors);
            }
            text
        };
        let (behalf, paid) = (name("behalf"), name("paid"));
        let adrender = fields
            .integer("adrender", 0..=1, &mut self.errors)
            .unwrap_or(0)
            == 1;
        let mut used = Vec::new();
        let entries: Vec<_> = fields
            .list("transparency", ENTRIES_MAX, &mut self.errors)
            .collect();
        for (key, node) in entries {
            let path = fields.at(&key);
            let known = ["domain", "dsaparams"];
            let entry = Fields::open(node, path, fields.id(), &known, &mut self.errors);
            if let Some(entry) = entry {
                let domain = self.domain(&entry);
                let dsaparams = entry.codes("dsaparams", ENTRIES_MAX, &mut self.errors);
                used.push((domain, dsaparams));
            }
        }
        Some(Transparency {
            adrender,
            bid_json: transparency_part(behalf, paid, adrender, &used),
        })
    }
}
