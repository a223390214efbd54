//! What an imp offers, as it is read: forms, mistakes, and that nothing of it makes a request malformed.

use super::*;
use crate::openrtb::{AssetKind, Flex};

#[test]
fn video_and_audio_are_read_in_all_disguises() {
    let media = r#"{"mimes":["video/mp4",null,7],"minduration":"5","maxduration":30.0,"rqddurs":["15",30],"protocols":[2,"3"],"protocol":9,
        "w":640,"h":"360","linearity":1,"battr":[13],"api":["7"],"minbitrate":300,"maxbitrate":1500,"pos":7,
        "podid":12,"poddur":60,"maxseq":"4","slotinpod":-1,"mincpmpersec":"0.5","durfloors":[{"mindur":1,"maxdur":15,"bidfloor":5},{},null,"x"],
        "skip":1,"delivery":[1],"companionad":[{"w":1}],"ext":"?"}"#;
    for format in ["video", "audio"] {
        good(with_imp(format, media), |request, _| {
            let imp = &request.imp[0];
            let media = if format == "video" {
                imp.video
            } else {
                imp.audio
            };
            let media = media.expect("a slot");
            assert_eq!(media.mimes, Field::Value(&["video/mp4", "7"][..]));
            assert_eq!(
                (media.minduration, media.maxduration, media.rqddurs),
                (
                    Field::Value(5),
                    Field::Value(30),
                    Field::Value(&[15, 30][..])
                )
            );
            assert_eq!(media.protocols, Field::Value(&[2, 3][..]));
            assert_eq!(
                (media.w, media.h, media.pos),
                (Some(640), Some(360), Some(7))
            );
            assert_eq!(
                (media.battr, media.api),
                (Field::Value(&[13][..]), Field::Value(&[7][..]))
            );
            assert_eq!(
                (media.minbitrate, media.maxbitrate),
                (Field::Value(300), Field::Value(1500))
            );
            let pod = media.pod;
            assert_eq!(
                (pod.podid, pod.poddur, pod.maxseq, pod.slotinpod),
                (Field::Value("12"), Field::Value(60), Field::Value(4), -1)
            );
            assert_eq!(
                media
                    .floors
                    .mincpmpersec
                    .value()
                    .map(|price| price.micros()),
                Some(500_000)
            );
            let ranges = media.floors.durfloors.value().expect("ranges");
            let shown: Vec<_> = ranges
                .iter()
                .map(|range| (range.mindur, range.maxdur, range.bidfloor.is_unreadable()))
                .collect();
            assert_eq!(
                shown,
                [
                    (Some(1), Some(15), false),
                    (None, None, false),
                    (None, None, false),
                    (None, None, true)
                ]
            );
        });
    }
}

#[test]
fn a_format_that_is_no_object_is_not_offered() {
    for format in ["banner", "video", "audio", "native"] {
        for (value, noted) in [
            ("null", false),
            ("\"\"", false),
            ("[]", false),
            ("7", true),
            ("\"x\"", true),
            ("[{}]", true),
            ("true", true),
        ] {
            good(with_imp(format, value), |request, _| {
                let imp = &request.imp[0];
                let offered = imp.banner.is_some()
                    || imp.video.is_some()
                    || imp.audio.is_some()
                    || imp.native.is_some();
                assert!(!offered, "{format} {value}");
                assert_eq!(!request.unreadable.is_empty(), noted, "{format} {value}");
            });
        }
        good(with_imp(format, "{}"), |request, _| {
            let imp = &request.imp[0];
            let offered = [
                imp.banner.is_some(),
                imp.video.is_some(),
                imp.audio.is_some(),
                imp.native.is_some(),
            ];
            assert_eq!(offered.iter().filter(|is| **is).count(), 1, "{format}");
        });
    }
}

#[test]
fn formats_may_be_proportions_and_those_are_few() {
    let banner = r#"{"format":[{"w":300,"h":250},{"wratio":"16","hratio":9,"wmin":320},{"w":1},{"wratio":1,"hratio":0},{"w":3,"h":2,"wratio":3,"hratio":2}]}"#;
    good(with_imp("banner", banner), |request, _| {
        let banner = request.imp[0].banner.expect("a banner");
        assert_eq!(
            banner
                .sizes
                .iter()
                .map(|size| (size.w, size.h))
                .collect::<Vec<_>>(),
            [(300, 250), (3, 2)]
        );
        assert_eq!(
            banner.flex,
            [Flex {
                wratio: 16,
                hratio: 9,
                wmin: 320
            }]
        );
        assert_eq!(
            request.unreadable.iter().collect::<Vec<_>>(),
            [FieldName::BannerFormat]
        );
    });
    let many = vec![r#"{"wratio":1,"hratio":1}"#; 1000].join(",");
    good(
        with_imp("banner", &format!(r#"{{"format":[{many}]}}"#)),
        |request, _| {
            assert_eq!(request.imp[0].banner.expect("a banner").flex.len(), 16);
        },
    );
}

/// What an imp's native document asks for, in short.
fn ask(native: &str) -> Option<String> {
    let mut shown = None;
    good(with_imp("native", native), |request, arena| {
        let native = request.imp[0].native.expect("native");
        shown = native.ask(arena).map(|ask| {
            let kinds = ask.assets.iter().map(|asset| match asset.kind {
                AssetKind::Title { .. } => "title",
                AssetKind::Image(_) => "img",
                AssetKind::Data { .. } => "data",
                AssetKind::Video(_) => "video",
                AssetKind::Unknown => "?",
            });
            format!(
                "{} {} {}",
                ask.ver,
                ask.rooted,
                kinds.collect::<Vec<_>>().join(",")
            )
        });
    });
    shown
}

#[test]
fn a_native_document_is_read_when_it_is_asked_for() {
    let document = r#"{"ver":"1.1","assets":[{"id":1,"title":{"len":9}},{"img":{}},{"data":{"type":1}},{"video":{}},{"title":{},"img":{}},7,{}]}"#;
    let want = "1.1 false title,img,data,video,?,?,?";
    let text = serde_json::to_string(document).expect("JSON");
    assert_eq!(
        ask(&format!(r#"{{"request":{document}}}"#)).as_deref(),
        Some(want)
    );
    assert_eq!(
        ask(&format!(r#"{{"request":{text}}}"#)).as_deref(),
        Some(want)
    );
    assert_eq!(
        ask(&format!(r#"{{"request":null,"request_native":{text}}}"#)).as_deref(),
        Some(want)
    );
    let rooted = format!(r#"{{"native":{document}}}"#);
    let want = "1.1 true title,img,data,video,?,?,?";
    assert_eq!(
        ask(&format!(r#"{{"ver":"1.2","request":{rooted}}}"#)).as_deref(),
        Some(want)
    );
    let plain = r#"{"assets":[{"title":{}}]}"#;
    assert_eq!(
        ask(&format!(r#"{{"ver":"1.0","request":{plain}}}"#)).as_deref(),
        Some("1.0 false title")
    );
    for broken in [
        "7",
        "\"\"",
        "{}",
        "\"{\"",
        "\"[]\"",
        "\"null\"",
        "\"\\ud800\"",
        r#""{\"assets\":[{}]} x""#,
        r#"{"assets":{}}"#,
        "[]",
    ] {
        assert_eq!(ask(&format!(r#"{{"request":{broken}}}"#)), None, "{broken}");
    }
    let deep = format!(
        r#"{{"request":{{"assets":[{{"title":{{}}}}],"ext":{}{}}}}}"#,
        "[".repeat(300),
        "]".repeat(300)
    );
    assert_eq!(ask(&deep).as_deref(), Some("1.2 false title"));
}

#[test]
fn a_broken_native_text_changes_nothing_else() {
    for broken in ["{", "\u{1}", "{\"assets\":[", "\\", "\""] {
        let text = serde_json::to_string(broken).expect("JSON");
        let body = format!(
            r#"{{"id":"r","imp":[{{"id":"1","native":{{"request":{text},"battr":[1]}},"bidfloor":2}}]}}"#
        );
        good(body, |request, arena| {
            let imp = &request.imp[0];
            let native = imp.native.expect("native");
            assert!(native.ask(arena).is_none());
            assert_eq!(native.battr, Field::Value(&[1][..]));
            assert!(imp.floor.amount.value().is_some() && request.unreadable.is_empty());
        });
    }
}

#[test]
fn what_an_imp_says_of_time_and_number() {
    let body = r#"{"id":"r","imp":[{"id":"1","exp":"60","qty":{"multiplier":14.2},"dt":1647010095000.25,"ssai":"x","clickbrowser":{},"rwdd":"1",
        "pmp":{"deals":[{"id":"d","guar":true,"mincpmpersec":0.1,"durfloors":[{"bidfloor":1}]},{"id":"e","guar":2}]}}]}"#;
    good(body, |request, _| {
        let imp = &request.imp[0];
        assert_eq!((imp.exp, imp.rwdd), (Field::Value(60), Some(true)));
        assert_eq!(
            imp.multiplier.value().map(|said| said.millionths()),
            Some(14_200_000)
        );
        assert_eq!(
            (imp.deals[0].guar, imp.deals[1].guar),
            (Field::Value(true), Field::Unreadable)
        );
        assert_eq!(
            imp.deals[0]
                .duration_floors
                .durfloors
                .value()
                .map(<[_]>::len),
            Some(1)
        );
        assert_eq!(
            request.unreadable.iter().collect::<Vec<_>>(),
            [FieldName::DealGuaranteed]
        );
    });
}
