/// The decision from an engine's probabilities, as in the toolkit's decision.py.

private let sumTolerance = 1e-2  // int8 probabilities have steps of 1/256

/// `label` is the most probable class, `positive` whether the `score`, the summed probability of
/// the positive labels, reaches the threshold. Both are nil if none was frozen for the engine.
public struct Decision {
    public let label: String
    public let probabilities: [(label: String, value: Float)]
    public let score: Double?, positive: Bool?
}

func areProbabilities(_ values: [Float]) -> Bool {
    let sum = values.reduce(0.0) { $0 + Double($1) }
    return values.allSatisfy { $0.isFinite && $0 >= 0 } && abs(sum - 1) <= sumTolerance
}

/// Returns the place of the first largest value.
func indexOfMax(_ values: [Float]) -> Int {
    values.indices.reduce(0) { values[$1] > values[$0] ? $1 : $0 }
}

public func decide(_ values: [Float], _ contract: Contract) -> Decision {
    let pairs = zip(contract.labels, values).map { (label: $0, value: $1) }
    let score = contract.operating_point.map { point in
        pairs.filter { point.positive.contains($0.label) }.reduce(0.0) { $0 + Double($1.value) }
    }
    return Decision(
        label: contract.labels[indexOfMax(values)],
        probabilities: pairs,
        score: score,
        positive: contract.operating_point.map { score! >= $0.threshold }
    )
}
