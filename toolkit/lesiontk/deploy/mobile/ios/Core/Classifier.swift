/// From a picture's pixels to an answer or a refusal, and the self-test before the first one.

import Foundation

/// The `decision` on a picture. A `refusal` of its input hides it.
public typealias Answer = (decision: Decision, refusal: Verdict?)

/// The bundle whose files `read` reads, with the engine behind `infer`.
public struct Classifier {
    public let contract: Contract
    private let read: (String) throws -> Data
    private let infer: ([UInt8]) throws -> Signals
    private let checks: InputChecks?

    public init(
        read: @escaping (String) throws -> Data, infer: @escaping ([UInt8]) throws -> Signals
    ) throws {
        contract = try JSONDecoder().decode(Contract.self, from: read("bundle.json"))
        checks = try contract.input_checks.map {
            try InputChecks(json: read($0), values: read("input_checks.bin"))
        }
        (self.read, self.infer) = (read, infer)
    }

    public func classify(_ pixels: Pixels) throws -> Answer {
        let input = try prepare(pixels)
        let signals = try runEngine(input)
        let verdict = try judge(input, min(pixels.width, pixels.height), signals)
        let refusal = verdict?.status == statuses[0] ? nil : verdict
        return (decide(signals.probabilities, contract), refusal)
    }

    private func prepare(_ pixels: Pixels) throws -> [UInt8] {
        let wanted = contract.preprocessing
        return try cropAndResize(pixels, size: wanted.image_size, cropMode: wanted.crop_mode)
    }

    private func runEngine(_ input: [UInt8]) throws -> Signals {
        let signals = try infer(input)
        let (values, n) = (signals.probabilities, contract.labels.count)
        guard values.count == n, areProbabilities(values) else {
            throw Failure("The engine returns \(values); expected \(n) probabilities.")
        }
        return signals
    }

    private func judge(_ input: [UInt8], _ side: Int, _ signals: Signals) throws -> Verdict? {
        try checks.map { try checkInput($0, input: input, shorterSide: side, signals: signals) }
    }

    /// Throws an error unless this device prepares the golden pictures, which `decode` decodes, to
    /// the same bytes, whose hash `sha256` returns, and answers the golden images as the desktop
    /// engine does.
    public func selfTest(
        decode: (Data) throws -> Pixels, sha256: ([UInt8]) -> String
    ) throws {
        for (name, expected) in contract.golden.pictures {
            guard sha256(try prepare(decode(read(name)))) == expected else {
                throw Failure("\(name) is prepared to other bytes.")
            }
        }
        let images = [UInt8](try read(contract.mobile.golden_images))
        let expected = floatsOf(try read(contract.mobile.golden_probabilities))
        let places = try contract.mobile.golden_statuses.map { [UInt8](try read($0)) }
        let (classes, size) = (contract.labels.count, contract.preprocessing.image_size)
        let n = expected.count / classes
        var (agreeing, judged, drift) = (0, 0, 0.0)
        for at in 0..<n {
            let input = Array(images[at * images.count / n..<(at + 1) * images.count / n])
            let signals = try runEngine(input)
            let wanted = Array(expected[at * classes..<(at + 1) * classes])
            agreeing += indexOfMax(signals.probabilities) == indexOfMax(wanted) ? 1 : 0
            drift += zip(wanted, signals.probabilities).reduce(0) { $0 + Double(abs($1.0 - $1.1)) }
            let verdict = try judge(input, size, signals)
            judged += places.map { verdict?.status == statuses[Int($0[at])] } ?? true ? 1 : 0
        }
        drift /= Double(expected.count)
        let least = contract.golden.min_agreement * Double(n)
        guard Double(min(agreeing, judged)) >= least, drift <= contract.golden.max_mean_drift else {
            throw Failure(
                "Of \(n) golden images \(agreeing) have the expected class, \(judged) the expected "
                    + "status; the mean difference of a probability is \(drift). This device "
                    + "computes otherwise.")
        }
    }
}
