import Foundation
import LesionCore

/// Returns what the screen shows: why a picture is refused, or the decision and probabilities.
func describe(_ answer: Answer, _ point: OperatingPoint?) -> String {
    if let refusal = answer.refusal {
        return "Refused: \(refusal.reasons.joined(separator: "; "))."
    }
    let decision = answer.decision
    let unknown = "The most probable class. No threshold was frozen for this engine."
    var lines = [decision.label, unknown]
    if let point, let score = decision.score, let positive = decision.positive {
        let relation = positive ? "reaches" : "is below"
        lines = [
            positive ? "Positive" : "Negative",
            "The score of \(point.positive.joined(separator: " + ")), \(digits(score)), "
                + "\(relation) the threshold of \(digits(point.threshold)).",
        ]
    }
    let ranked = decision.probabilities.enumerated().sorted {
        ($1.element.value, $0.offset) < ($0.element.value, $1.offset)
    }
    return (lines + ranked.map { "\($0.element.label) \(digits(Double($0.element.value)))" })
        .joined(separator: "\n")
}

private func digits(_ value: Double) -> String { String(format: "%.3f", value) }
