/// What the app reads of bundle.json and input_checks.json: nothing of an engine is in the code.

import Foundation

public struct Failure: LocalizedError {
    public let errorDescription: String?
    public init(_ message: String) { errorDescription = message }
}

/// A frozen decision: positive from `threshold` of the summed probability of `positive`.
public struct OperatingPoint: Decodable { public let threshold: Double, positive: [String] }

public struct Contract: Decodable {
    public struct Engine: Decodable { public let file: String }
    public struct Preprocessing: Decodable { public let image_size: Int, crop_mode: String }
    struct Golden: Decodable {
        let pictures: [String: String], min_agreement, max_mean_drift: Double
    }
    struct Mobile: Decodable {
        let golden_images, golden_probabilities: String, golden_statuses: String?
    }
    public let name, notice: String, labels: [String]
    public let engine: Engine, preprocessing: Preprocessing
    public let operating_point: OperatingPoint?
    let input_checks: String?
    let golden: Golden, mobile: Mobile
}

/// The fitted input checks: bounds of the picture's quality, and the score of its strangeness.
public struct InputChecks {
    struct Shapes: Decodable { let means, axes, variances: [Int]? }
    struct Domain: Decodable {
        let score: String, threshold: Double, arrays: Shapes
        let unit_length: Bool?, rest_variance: Double?
    }
    struct Document: Decodable { let quality: [String: [String: Double]], domain: Domain }
    let document: Document
    let means, axes, variances: [Double]

    public init(json: Data, values: Data) throws {
        document = try JSONDecoder().decode(Document.self, from: json)
        var rest = floatsOf(values).map(Double.init)[...]
        func take(_ shape: [Int]?) -> [Double] {
            let n = shape?.reduce(1, *) ?? 0
            defer { rest = rest.dropFirst(n) }
            return Array(rest.prefix(n))
        }
        let shapes = document.domain.arrays  // in the order of the file
        (means, axes, variances) = (take(shapes.means), take(shapes.axes), take(shapes.variances))
    }
}

/// Returns the floats of a file; they are little-endian, and so are Apple's processors.
public func floatsOf(_ bytes: Data) -> [Float] {
    var floats = [Float](repeating: 0, count: bytes.count / 4)
    _ = floats.withUnsafeMutableBytes { bytes.copyBytes(to: $0) }
    return floats
}
