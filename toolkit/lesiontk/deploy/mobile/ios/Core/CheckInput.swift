/// Whether a picture is good enough, and like the training images, as in input_checks.py.

import Foundation

/// An engine's outputs; `features` and `logits` are empty for an engine without input checks.
public typealias Signals = (probabilities: [Float], features: [Float], logits: [Float])

/// `status` is one of `statuses`; `measures` are those of the picture, and its "domain" score.
public struct Verdict { public let status: String, reasons: [String], measures: [String: Double] }

let statuses = ["accepted", "poor_quality", "out_of_domain"]
private let (bright, dark) = (250, 5)
private let strange = "the picture is unlike the dermoscopic images that the network was trained on"
private let reasons = [
    ("sharpness", "low", "the picture is blurred"),
    ("brightness", "low", "the picture is too dark"),
    ("brightness", "high", "the picture is too bright"),
    ("overexposed", "high", "too much of the picture is overexposed"),
    ("underexposed", "high", "too much of the picture is black"),
    ("shorter_side", "low", "the picture has too few pixels"),
]

/// Judges the engine's `input`, RGB bytes [S, S, 3] made of a picture with `shorterSide` pixels.
public func checkInput(
    _ checks: InputChecks, input: [UInt8], shorterSide: Int, signals: Signals
) throws -> Verdict {
    var measures = measureQuality(input)
    measures["shorter_side"] = Double(shorterSide)
    let faults = reasons.filter { name, side, _ in
        guard let bound = checks.document.quality[name]?[side] else { return false }
        return side == "low" ? measures[name]! < bound : measures[name]! > bound
    }.map(\.2)
    let domain = try scoreDomain(checks, signals)
    measures["domain"] = domain
    if !faults.isEmpty { return Verdict(status: statuses[1], reasons: faults, measures: measures) }
    let known = domain <= checks.document.domain.threshold  // not where it is not a number
    let (status, found) = known ? (statuses[0], []) : (statuses[2], [strange])
    return Verdict(status: status, reasons: found, measures: measures)
}

private func measureQuality(_ input: [UInt8]) -> [String: Double] {
    let size = Int(Double(input.count / 3).squareRoot())
    let luma = (0..<size * size).map {
        (77 * Int(input[3 * $0]) + 150 * Int(input[3 * $0 + 1]) + 29 * Int(input[3 * $0 + 2])) >> 8
    }
    var (total, squares) = (0, 0)
    for y in 1..<size - 1 {
        for at in y * size + 1..<(y + 1) * size - 1 {
            let around = luma[at - size] + luma[at + size] + luma[at - 1] + luma[at + 1]
            let laplacian = around - 4 * luma[at]
            total += laplacian
            squares += laplacian * laplacian
        }
    }
    let n = Double((size - 2) * (size - 2))
    let mean = Double(total) / n
    return [
        "sharpness": Double(squares) / n - mean * mean,
        "brightness": Double(luma.reduce(0, +)) / Double(luma.count),
        "overexposed": Double(luma.filter { $0 >= bright }.count) / Double(luma.count),
        "underexposed": Double(luma.filter { $0 <= dark }.count) / Double(luma.count),
    ]
}

/// Returns how unlike the training images a picture is; larger is stranger.
private func scoreDomain(_ checks: InputChecks, _ signals: Signals) throws -> Double {
    switch checks.document.domain.score {
    case "probability":
        return -Double(signals.probabilities[indexOfMax(signals.probabilities)])
    case "energy":
        let peak = Double(signals.logits[indexOfMax(signals.logits)])
        return -(peak + log(signals.logits.reduce(0) { $0 + exp(Double($1) - peak) }))
    case "distance":
        return findDistance(checks, signals.features.map(Double.init))
    case let other:
        throw Failure("The domain score is \(other); expected probability, energy or distance.")
    }
}

/// Returns the smallest squared Mahalanobis distance to the mean of a class.
private func findDistance(_ checks: InputChecks, _ features: [Double]) -> Double {
    let domain = checks.document.domain
    let length = features.reduce(0) { $0 + $1 * $1 }.squareRoot()
    let unit = domain.unit_length == true ? max(length, Double(Float.leastNormalMagnitude)) : 1
    var nearest = Double.infinity
    for first in stride(from: 0, to: checks.means.count, by: features.count) {
        let difference = features.indices.map { features[$0] / unit - checks.means[first + $0] }
        var rest = difference.reduce(0) { $0 + $1 * $1 }
        var distance = 0.0
        for axis in checks.variances.indices {
            let row = axis * features.count
            let along = features.indices.reduce(0) { $0 + difference[$1] * checks.axes[row + $1] }
            rest -= along * along
            distance += along * along / checks.variances[axis]
        }
        distance += rest / (domain.rest_variance ?? 1)
        if distance.isNaN { return distance }
        nearest = min(nearest, distance)
    }
    return nearest
}
