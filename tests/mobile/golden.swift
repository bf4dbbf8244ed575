// Runs the app's library on the cases in a folder, and prints what it returns as JSON.

import Foundation
import LesionCore

struct Case {
    let entry: [String: Any]
    let folder: URL

    func text(_ name: String) -> String { entry[name] as! String }
    func number(_ name: String) -> Int { entry[name] as! Int }
    func file(_ name: String) throws -> Data { try Data(contentsOf: folder.appending(path: text(name))) }

    func pixels() throws -> Pixels {
        Pixels(
            width: number("width"), height: number("height"), rowBytes: number("row_bytes"),
            bytes: [UInt8](try file("file")), red: entry["red"] as? Int ?? 0)
    }

    func run(_ kind: String) throws -> Any {
        switch kind {
        case "resize":
            let size = number("image_size")
            return sha256(try cropAndResize(pixels(), size: size, cropMode: text("crop_mode")))
        case "decisions":
            let json = try JSONSerialization.data(withJSONObject: entry["contract"]!)
            let contract = try JSONDecoder().decode(Contract.self, from: json)
            let decision = decide(floatsOf(try file("values")), contract)
            let shown = describe((decision, nil), contract.operating_point)
            return [
                "label": decision.label, "score": decision.score ?? NSNull(),
                "positive": decision.positive ?? NSNull(), "shown": shown,
            ] as [String: Any]
        case "checks":
            let checks = try InputChecks(json: file("document"), values: file("arrays"))
            let signals = signalsOf(try file("signals"), number("classes"))
            let verdict = try checkInput(
                checks, input: [UInt8](file("input")), shorterSide: number("shorter_side"),
                signals: signals)
            return [
                "status": verdict.status, "reasons": verdict.reasons,
                "measures": verdict.measures.mapValues { $0.isNaN ? "NaN" : "\($0)" },
            ] as [String: Any]
        case "self_tests":
            return try selfTest(folder.appending(path: text("folder")), number("classes")) ?? NSNull()
        case "answers":
            let assets = folder.appending(path: text("folder"))
            let outputs = signalsOf(try file("signals"), number("classes"))
            let classifier = try Classifier(
                read: { try Data(contentsOf: assets.appending(path: $0)) }, infer: { _ in outputs })
            return describe(try classifier.classify(pixels()), classifier.contract.operating_point)
        default:
            throw Failure("no case of the kind \(kind)")
        }
    }
}

/// Returns why the self-test of the assets in a folder fails, or nil; its outputs are recorded.
func selfTest(_ assets: URL, _ classes: Int) throws -> String? {
    func read(_ name: String) throws -> Data { try Data(contentsOf: assets.appending(path: name)) }
    let outputs = try read("signals.f32")
    let images = try read("golden_images.u8").count
    var at = 0
    let classifier = try Classifier(read: read) { input in
        let size = outputs.count / (images / input.count)
        defer { at += size }
        return signalsOf(outputs[at..<at + size], classes)
    }
    do {
        try classifier.selfTest(decode: decode, sha256: sha256)
        return nil
    } catch let failure as Failure {
        return failure.errorDescription
    }
}

/// The phone's decoder stands here: the pictures are kept as width, height and RGBA.
func decode(_ file: Data) -> Pixels {
    func number(_ at: Int) -> Int { (0..<4).reduce(0) { $0 | Int(file[at + $1]) << (8 * $1) } }
    let width = number(0)
    return Pixels(width: width, height: number(4), rowBytes: 4 * width, bytes: [UInt8](file[8...]))
}

/// Reads an image's outputs: probabilities, features, logits; or probabilities alone.
func signalsOf(_ bytes: Data, _ classes: Int) -> Signals {
    let values = floatsOf(bytes)
    if values.count == classes { return (values, [], []) }
    let features = Array(values[classes..<values.count - classes])
    return (Array(values.prefix(classes)), features, Array(values.suffix(classes)))
}

/// The phone's own implementation stands here: FIPS 180-4, in hexadecimal.
func sha256(_ bytes: [UInt8]) -> String {
    let primes = (2...311).filter { n in !(2..<n).contains { n % $0 == 0 } }
    func fraction(_ root: Double) -> UInt32 { UInt32((root - root.rounded(.down)) * 4294967296) }
    let rounds = primes.map { fraction(cbrt(Double($0))) }
    var state = primes.prefix(8).map { fraction(Double($0).squareRoot()) }
    let zeros = [UInt8](repeating: 0, count: (119 - bytes.count % 64) % 64)
    let length = (0..<8).map { UInt8(truncatingIfNeeded: (bytes.count * 8) >> (56 - 8 * $0)) }
    let message = bytes + [0x80] + zeros + length
    func rotate(_ x: UInt32, _ n: UInt32) -> UInt32 { x >> n | x << (32 - n) }
    for block in stride(from: 0, to: message.count, by: 64) {
        var w = (0..<16).map { i in
            (0..<4).reduce(UInt32(0)) { $0 << 8 | UInt32(message[block + 4 * i + $1]) }
        }
        for i in 16..<64 {
            let s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3
            let s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10
            w.append(w[i - 16] &+ s0 &+ w[i - 7] &+ s1)
        }
        var s = state
        for i in 0..<64 {
            let s1 = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)
            let choice = (s[4] & s[5]) ^ (~s[4] & s[6])
            let t1 = s[7] &+ s1 &+ choice &+ rounds[i] &+ w[i]
            let s0 = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)
            let majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2])
            s = [t1 &+ s0 &+ majority, s[0], s[1], s[2], s[3] &+ t1, s[4], s[5], s[6]]
        }
        state = zip(state, s).map { $0 &+ $1 }
    }
    return state.map { String(format: "%08x", $0) }.joined()
}

@main
enum Golden {
    static func main() throws {
        let folder = URL(filePath: CommandLine.arguments[1])
        let json = try Data(contentsOf: folder.appending(path: "cases.json"))
        let cases = try JSONSerialization.jsonObject(with: json) as! [String: [[String: Any]]]
        var answers: [String: [Any]] = [:]
        for (kind, entries) in cases {
            answers[kind] = try entries.map { try Case(entry: $0, folder: folder).run(kind) }
        }
        FileHandle.standardOutput.write(try JSONSerialization.data(withJSONObject: answers))
    }
}
