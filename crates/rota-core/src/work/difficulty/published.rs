//! What others published about next targets (steps 4 and 6), to be met exactly: headers and times
//! of Bitcoin's main chain, and conformance points of aserti3-2d.

/// Headers of Bitcoin's main chain around eight changes of the target: of the heights 554,400;
/// then 556,415 and 556,416; and so on every 2016 blocks to 570,527 and 570,528. Their hashes show
/// that they are real: nobody else could afford them.
pub(super) const HEADERS: [&str; 17] = [
    "00004020d3b2d7d61ad2d95ffbd556d9e00f07877423600a8da015000000000000000000\
     d192743a2c190a7421f92fefe92505579d7b8eda568cacee13b25751ac704c669d83195cf41e371721bae3e7",
    "00000020bc7d388bea14dab9caa937b909caecd6ece36e3c658920000000000000000000\
     7c0900cf1a9b40411141859b98bf95fb9d414f49044e08acff21fa54506022a4e6492a5cf41e3717d2864679",
    "00000020120b3264562d49df59c400a0f276448db2a9aa4bf6f408000000000000000000\
     5cb4b52150fe7dec217b74db424e442ef8b24105c244ebaeb59f638db9c48ef3c94f2a5ca5183217b412a530",
    "0000402022c9973a4f6c0623105f2a5d0dc349773848a4f02de60f000000000000000000\
     e88eabc4c6398c80cea87f6d1d662c6640de4719f7949ae85afe75746dd04abbabef3b5ca5183217f6d45f41",
    "00c0ff2f6550b5dae76559589e3e3e135237072b6bc498949da628000000000000000000\
     5988783435f506d2ccfbadb484e56d6f1d5dfdd480650acae1e3b43d3464ea73caf13b5c33d62f171d508fdb",
    "00000020d8e8e54ca5e33522b94fbba5de736efc55ff75e832cf23000000000000000000\
     07b395f80858ee022c9c3c2f0f5cee4bd807039f0729b0559ae4326c3ba77d6b209f4e5c33d62f1746ee356d",
    "000000206b05bd2c4a06b3d8503a033c2593396a25a79e1dcadb14000000000000000000\
     1b08df3d42cd9a38d8b66adf9dc5eb464f503633bd861085ffff723634531596a1a24e5c35683017bf67b72a",
    "00000020a46d4a919e723eee2c269a3ad7a1f48184670e33e0580d000000000000000000\
     d0df74c5c0ca4ee2c0f0a93e173d5ea68788413febe3d572f573bf2ef2a906673457605c35683017deaa6854",
    "00000020ae55d7640b738e1c16091cc73666526e7fa12af66c0419000000000000000000\
     f7825fe0714275fe54521f66e898cf743ed43dd93f185cb628df995823e4ee2d7d58605c886f2e176d085a4c",
    "00000020b4fe0ef78ee4d02206011ba597b45ef84ef1029ad86503000000000000000000\
     34fdbe970f5d00d2e37de72755077c7039976baa5417ddfd358013d8ea9cb8d374c5725c886f2e1795d4ee3a",
    "000000200cd536b3eb1cd9c028e081f1455006276b293467c3e517000000000000000000\
     7bc1b27489db01c85d38a4bc6d2280611e9804f506d83ad00d2a33ebd663992f76c7725c505b2e174fb90f55",
    "000000202164d8c4e5246ab003fdebe36c697b9418aa454ec4190d000000000000000000\
     59134ad5aaad38a0e75946c7d4cb09b3ad45b459070195dd564cde193cf0ef29c33e855c505b2e17f61af734",
    "000000201b61e8961710991a47ff8187d946d93e4fb33569c09622000000000000000000\
     d0098658f53531e6e67fc9448986b5a8f994da42d746079eabe10f55e561e243103f855c17612e1735c4afdb",
    "0000002054e2f34a4a7de13ad8a127fe7af77acca76d8de97fff06000000000000000000\
     f09f9736ab073f80f014a03e68c2409cd16a3d5f43f512638e6b67131d7f7c9b2dce965c17612e17749cdf0c",
    "0000002014c3146b6808b8d0abc4c6f9ee09d7e4077f7aa37acf1c000000000000000000\
     68149a62b93c2c9f91fbaa2973ca1b79ba11fc5ee8c6cce9f01861e8ad02cd8255ce965c6c1f2c1777fabf78",
    "0040ff2f227654cf237a197d8bbd85353a3b468b8f36cd49048e07000000000000000000\
     34e7151e2fdaf85bf6751d1281c027b630c481318c3762fa10c318b7f19286e82a39a95c6c1f2c173f83f821",
    "0000402021332f1880d072abd65a4ea1b09facdb301171a7e7e30d000000000000000000\
     71b3a61247a4cf6b892055f278247f33d76fa90b48c76fda69f583268cb965f8af39a95c1d072c170022062d",
];

/// The height of the first of [`HEADERS`].
pub(super) const FIRST_HEIGHT: u64 = 554_400;

/// The cases of Bitcoin Core's pow_tests.cpp: the last block's height, the times of the interval's
/// first and last block, and the bits before and after. The first three are the main chain's first
/// interval, its first change, and one that was cut at a quarter; the last, cut at four times, is
/// made up there.
pub(super) const CORE_CASES: [(u64, u32, u32, u32, u32); 4] = [
    (2_015, 1_231_006_505, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
    (32_255, 1_261_130_161, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
    (68_543, 1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
    (46_367, 1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
];

/// One of the runs that go with aserti3-2d's specification, with some of its points.
pub(super) struct Run {
    /// As it is published.
    pub name: &'static str,
    /// The anchor's height, its parent's time, and its bits.
    pub anchor: (u64, u32, u32),
    /// A block's height and time, and the bits due in its child.
    pub points: &'static [(u64, u32, u32)],
}

/// Points of all ten runs that Bitcoin Cash Node publishes (qa-assets, test_vectors/aserti3-2d),
/// at a spacing of 600 s, a half-life of 172,800 s, and bits 0x1d00ffff as the easiest.
#[rustfmt::skip]
pub(super) const RUNS: [Run; 10] = [
    Run {
        name: "run 1: steady, at the easiest target",
        anchor: (1, 0, 0x1d00_ffff),
        points: &[(2, 1200, 0x1d00_ffff), (3, 1800, 0x1d00_ffff), (11, 6600, 0x1d00_ffff)],
    },
    Run {
        name: "run 2: steady, at some target",
        anchor: (1, 0, 0x1a2b_3c4d),
        points: &[(2, 1200, 0x1a2b_3c4d), (3, 1800, 0x1a2b_3c4d), (11, 6600, 0x1a2b_3c4d)],
    },
    Run {
        name: "run 3: steady, at the hardest target",
        anchor: (1, 0, 0x0101_0000),
        points: &[(2, 1200, 0x0101_0000), (3, 1800, 0x0101_0000), (11, 6600, 0x0101_0000)],
    },
    Run {
        name: "run 4: from the hardest target, a half-life late with each block",
        anchor: (1, 0, 0x0101_0000),
        points: &[
            (2, 174_000, 0x0102_0000), (3, 347_400, 0x0104_0000), (4, 520_800, 0x0108_0000),
            (5, 694_200, 0x0110_0000), (6, 867_600, 0x0120_0000), (7, 1_041_000, 0x0140_0000),
            (8, 1_214_400, 0x0200_8000), (16, 2_601_600, 0x0300_8000),
            (24, 3_988_800, 0x0400_8000), (41, 6_936_600, 0x0601_0000),
            (64, 10_924_800, 0x0900_8000), (100, 17_167_200, 0x0d08_0000),
            (128, 22_022_400, 0x1100_8000), (160, 27_571_200, 0x1500_8000),
            (200, 34_507_200, 0x1a00_8000), (216, 37_281_600, 0x1c00_8000),
            (223, 38_495_400, 0x1c40_0000), (224, 38_668_800, 0x1d00_8000),
            (225, 38_842_200, 0x1d00_ffff), (226, 39_015_600, 0x1d00_ffff),
        ],
    },
    Run {
        name: "run 5: from the easiest target, a half-life early with each block",
        anchor: (1, 0, 0x1d00_ffff),
        points: &[
            (2, 0, 0x1d00_fec5), (290, 0, 0x1c7f_62c0), (578, 0, 0x1c3f_b160),
            (866, 0, 0x1c1f_d8b0), (2_306, 0, 0x1c00_fec5), (6_626, 0, 0x1a01_fd8b),
            (16_130, 0, 0x1600_fec5), (28_514, 0, 0x101f_d8b0), (43_202, 0, 0x0a03_fb16),
            (57_314, 0, 0x0401_fd8b), (59_906, 0, 0x0300_fec5), (60_194, 0, 0x027f_6200),
            (60_482, 0, 0x023f_b100), (62_210, 0, 0x0200_fe00), (62_498, 0, 0x017f_0000),
            (62_786, 0, 0x013f_0000), (63_074, 0, 0x011f_0000), (63_362, 0, 0x010f_0000),
            (63_650, 0, 0x0107_0000), (63_938, 0, 0x0103_0000), (64_226, 0, 0x0101_0000),
            (64_514, 0, 0x0101_0000),
        ],
    },
    Run {
        name: "run 6: random times, the same hash rate",
        anchor: (1, 0, 0x1802_aee8),
        points: &[
            (2, 1_200, 0x1802_aee8), (3, 1_310, 0x1802_ad91), (4, 1_327, 0x1802_abf8),
            (5, 1_739, 0x1802_ab73), (6, 2_219, 0x1802_ab20), (7, 2_604, 0x1802_aa89),
            (8, 2_746, 0x1802_a94b), (9, 7_099, 0x1802_b39c), (10, 7_099, 0x1802_b1f2),
            (11, 7_657, 0x1802_b1d4), (12, 8_626, 0x1802_b2db), (13, 8_816, 0x1802_b1b7),
            (14, 9_632, 0x1802_b252), (15, 10_804, 0x1802_b3e7), (16, 11_727, 0x1802_b4ce),
            (54, 37_423, 0x1802_bcee), (101, 63_201, 0x1802_b620), (166, 96_105, 0x1802_a55e),
            (171, 99_835, 0x1802_a75a), (201, 125_604, 0x1802_bcde), (256, 162_908, 0x1802_c919),
            (301, 191_306, 0x1802_cd1d), (338, 212_804, 0x1802_cb17), (401, 244_075, 0x1802_b891),
            (437, 265_608, 0x1802_b861), (501, 300_620, 0x1802_aef5), (552, 338_121, 0x1802_c249),
            (575, 358_636, 0x1802_d597), (601, 370_035, 0x1802_c977), (620, 378_438, 0x1802_c0ec),
        ],
    },
    Run {
        name: "run 7: random times, a rising hash rate",
        anchor: (1, 0, 0x1802_aee8),
        points: &[
            (12, 8_141, 0x1802_b181), (13, 8_236, 0x1802_b01c), (22, 12_701, 0x1802_ad89),
            (31, 14_159, 0x1802_a2cf), (54, 17_306, 0x1802_869d), (80, 18_658, 0x1802_62b3),
            (101, 20_372, 0x1802_4899), (139, 22_112, 0x1802_192f), (157, 22_647, 0x1802_037f),
            (160, 22_709, 0x1801_ffea), (201, 24_359, 0x1801_d2e0), (257, 25_930, 0x1801_9aa2),
            (301, 26_908, 0x1801_72db), (370, 27_978, 0x1801_3b76), (401, 28_367, 0x1801_253b),
            (458, 29_033, 0x1801_004a), (459, 29_064, 0x1800_ffb4), (501, 29_563, 0x1800_e793),
            (552, 30_240, 0x1800_cd68), (601, 30_769, 0x1800_b6f5), (638, 31_020, 0x1800_a788),
        ],
    },
    Run {
        name: "run 8: random times, a falling hash rate",
        anchor: (1, 0, 0x1802_aee8),
        points: &[
            (12, 9_595, 0x1802_b58d), (22, 33_606, 0x1802_e994), (30, 43_410, 0x1802_f8af),
            (31, 46_761, 0x1803_011f), (54, 111_773, 0x1803_b056), (64, 138_133, 0x1804_00bd),
            (89, 227_503, 0x1805_6506), (100, 333_016, 0x1808_0571), (126, 498_904, 0x180e_a828),
            (155, 709_105, 0x181f_c36f), (186, 1_073_114, 0x187e_f4ed),
            (187, 1_078_358, 0x1900_8158), (201, 1_336_050, 0x1901_5fa0),
            (241, 1_907_986, 0x190c_5ed6), (280, 2_501_718, 0x1979_dde2),
            (281, 2_529_858, 0x1a00_881c), (318, 3_402_884, 0x1a10_2334),
            (351, 3_912_900, 0x1a73_4b80), (352, 3_950_808, 0x1b00_85ea),
            (401, 4_883_769, 0x1b13_9eeb), (425, 5_352_914, 0x1b79_926b),
            (426, 5_430_357, 0x1c00_a57c), (460, 6_254_195, 0x1c10_38f7),
            (480, 6_774_168, 0x1c7c_75fc), (481, 6_842_136, 0x1d00_a31a),
            (482, 6_924_554, 0x1d00_e26d), (483, 6_928_915, 0x1d00_e5dd),
            (484, 6_930_238, 0x1d00_e688), (485, 6_993_399, 0x1d00_ffff),
            (501, 7_462_933, 0x1d00_ffff),
        ],
    },
    Run {
        name: "run 9: 300 s a block, past the heights of 31 bits",
        anchor: (2_147_483_642, 1_234_567_290, 0x1802_aee8),
        points: &[
            (2_147_483_643, 1_234_568_190, 0x1802_ae16),
            (2_147_483_644, 1_234_568_490, 0x1802_ad44),
            (2_147_483_645, 1_234_568_790, 0x1802_ac71),
            (2_147_483_646, 1_234_569_090, 0x1802_ab9e),
            (2_147_483_647, 1_234_569_390, 0x1802_aacd),
            (2_147_483_648, 1_234_569_690, 0x1802_a9fa),
            (2_147_483_649, 1_234_569_990, 0x1802_a929),
            (2_147_483_650, 1_234_570_290, 0x1802_a858),
            (2_147_483_651, 1_234_570_590, 0x1802_a787),
            (2_147_483_652, 1_234_570_890, 0x1802_a6b7),
        ],
    },
    Run {
        name: "run 10: 900 s a block, past the heights of 63 bits and the times of 31",
        anchor: (9_223_372_036_854_775_802, 2_147_483_047, 0x1802_aee8),
        points: &[
            (9_223_372_036_854_775_803, 2_147_484_547, 0x1802_afbb),
            (9_223_372_036_854_775_804, 2_147_485_447, 0x1802_b08f),
            (9_223_372_036_854_775_805, 2_147_486_347, 0x1802_b166),
            (9_223_372_036_854_775_806, 2_147_487_247, 0x1802_b23a),
            (9_223_372_036_854_775_807, 2_147_488_147, 0x1802_b30e),
            (9_223_372_036_854_775_808, 2_147_489_047, 0x1802_b3e5),
            (9_223_372_036_854_775_809, 2_147_489_947, 0x1802_b4bb),
            (9_223_372_036_854_775_810, 2_147_490_847, 0x1802_b592),
            (9_223_372_036_854_775_811, 2_147_491_747, 0x1802_b669),
            (9_223_372_036_854_775_812, 2_147_492_647, 0x1802_b73d),
        ],
    },
];
