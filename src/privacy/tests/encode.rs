//! Writes TC and GPP strings, bit by bit as the specifications lay them out.

/// Bits as they are written.
#[derive(Default, Clone)]
pub(crate) struct Writer(Vec<bool>);

impl Writer {
    pub(crate) fn put(&mut self, value: u64, count: u32) -> &mut Self {
        self.0
            .extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    fn fibonacci(&mut self, number: u32) -> &mut Self {
        let mut series = vec![1, 2];
        while series[series.len() - 1] <= number {
            series.push(series[series.len() - 1] + series[series.len() - 2]);
        }
        let mut left = number;
        let mut code = Vec::new();
        for value in series.iter().rev() {
            let fits = *value <= left;
            left -= if fits { *value } else { 0 };
            if fits || !code.is_empty() {
                code.push(fits);
            }
        }
        self.0.extend(code.iter().rev());
        self.0.push(true);
        self
    }

    /// As base64url, filled up to whole characters.
    pub(crate) fn text(&self) -> String {
        const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let value = |six: &[bool]| {
            let bits = six
                .iter()
                .fold(0, |value, bit| value << 1 | usize::from(*bit));
            bits << (6 - six.len())
        };
        self.0
            .chunks(6)
            .map(|six| char::from(ALPHABET[value(six)]))
            .collect()
    }
}

/// How a set of vendors is written.
#[derive(Clone)]
pub(crate) enum Vendors {
    Bits(Vec<u16>),
    Ranges(Vec<(u16, u16)>),
}

impl Vendors {
    fn write(&self, to: &mut Writer) {
        match self {
            Self::Bits(ids) => {
                let highest = ids.iter().copied().max().unwrap_or(0);
                to.put(highest.into(), 16).put(0, 1);
                for id in 1..=highest {
                    to.put(ids.contains(&id).into(), 1);
                }
            }
            Self::Ranges(ranges) => {
                let highest = ranges.iter().map(|(_, last)| *last).max().unwrap_or(0);
                to.put(highest.into(), 16).put(1, 1);
                write_ranges(ranges, to);
            }
        }
    }
}

fn write_ranges(ranges: &[(u16, u16)], to: &mut Writer) {
    to.put(ranges.len() as u64, 12);
    for (first, last) in ranges {
        to.put((first != last).into(), 1).put((*first).into(), 16);
        if first != last {
            to.put((*last).into(), 16);
        }
    }
}

/// Purpose, kind, vendors.
pub(crate) type Restriction = (u8, u8, Vec<(u16, u16)>);

/// A European TC string to be.
#[derive(Clone)]
pub(crate) struct Tc {
    pub(crate) version: u8,
    pub(crate) cmp_id: u16,
    pub(crate) service_specific: bool,
    pub(crate) consents: Vec<u8>,
    pub(crate) interests: Vec<u8>,
    pub(crate) one_undisclosed: bool,
    pub(crate) country: [u8; 2],
    pub(crate) vendors: Vendors,
    pub(crate) interest_vendors: Vendors,
    pub(crate) restrictions: Vec<Restriction>,
    pub(crate) disclosed: Option<Vendors>,
}

impl Tc {
    /// Consent of vendor 7 to these purposes.
    pub(crate) fn to(purposes: &[u8]) -> Self {
        Self {
            version: 2,
            cmp_id: 10,
            service_specific: true,
            consents: purposes.to_vec(),
            interests: Vec::new(),
            one_undisclosed: false,
            country: *b"FR",
            vendors: Vendors::Bits(vec![3, 7, 9]),
            interest_vendors: Vendors::Bits(Vec::new()),
            restrictions: Vec::new(),
            disclosed: None,
        }
    }

    pub(crate) fn segments(&self) -> Vec<String> {
        let mut core = Writer::default();
        let purposes = |list: &[u8]| list.iter().fold(0, |bits, p| bits | 1 << (24 - p));
        core.put(self.version.into(), 6)
            .put(17_000_000_000, 36)
            .put(17_000_000_000, 36)
            .put(self.cmp_id.into(), 12)
            .put(1, 12)
            .put(1, 6)
            .put(0, 12)
            .put(300, 12)
            .put(5, 6)
            .put(self.service_specific.into(), 1)
            .put(0, 1)
            .put(0, 12)
            .put(purposes(&self.consents), 24)
            .put(purposes(&self.interests), 24)
            .put(self.one_undisclosed.into(), 1)
            .put((self.country[0] - b'A').into(), 6)
            .put((self.country[1] - b'A').into(), 6);
        self.vendors.write(&mut core);
        self.interest_vendors.write(&mut core);
        core.put(self.restrictions.len() as u64, 12);
        for (purpose, kind, ranges) in &self.restrictions {
            core.put((*purpose).into(), 6).put((*kind).into(), 2);
            write_ranges(ranges, &mut core);
        }
        let mut segments = vec![core.text()];
        if let Some(disclosed) = &self.disclosed {
            let mut segment = Writer::default();
            segment.put(1, 3);
            disclosed.write(&mut segment);
            segments.push(segment.text());
        }
        segments
    }

    pub(crate) fn text(&self) -> String {
        self.segments().join(".")
    }
}

/// A Canadian TC string by which vendor 7 has express consent to these purposes.
pub(crate) fn canadian(purposes: &[u8]) -> String {
    let mut core = Writer::default();
    let bits = purposes.iter().fold(0, |bits, p| bits | 1 << (24 - p));
    core.put(1, 6)
        .put(0, 36)
        .put(0, 36)
        .put(10, 12)
        .put(1, 12)
        .put(1, 6);
    core.put(0, 12)
        .put(1, 12)
        .put(5, 6)
        .put(0, 1)
        .put(0, 12)
        .put(bits, 24)
        .put(0, 24);
    Vendors::Bits(vec![7]).write(&mut core);
    Vendors::Bits(vec![]).write(&mut core);
    core.put(0, 12);
    core.text()
}

/// A section of fields of two bits, all of them 0 but some, with Global Privacy Control said or not.
pub(crate) fn us_section(
    version: u8,
    fields: usize,
    set: &[(usize, u8)],
    gpc: Option<bool>,
) -> String {
    let mut core = Writer::default();
    core.put(version.into(), 6);
    for place in 0..fields {
        let value = set.iter().find(|(at, _)| *at == place);
        core.put(value.map_or(0, |(_, value)| (*value).into()), 2);
    }
    let mut text = core.text();
    if let Some(gpc) = gpc {
        let mut segment = Writer::default();
        segment.put(1, 2).put(gpc.into(), 1);
        text = format!("{text}.{}", segment.text());
    }
    text
}

/// A GPP string of these sections, in ascending order of their numbers.
pub(crate) fn gpp(sections: &[(u8, String)]) -> String {
    let mut header = Writer::default();
    header.put(3, 6).put(1, 6).put(sections.len() as u64, 12);
    let mut last = 0;
    for (number, _) in sections {
        header.put(0, 1).fibonacci(u32::from(*number) - last);
        last = u32::from(*number);
    }
    let mut text = header.text();
    for (_, section) in sections {
        text.push('~');
        text.push_str(section);
    }
    text
}
