package com.example.lesion

import com.example.lesion.core.Answer
import com.example.lesion.core.OperatingPoint
import java.util.Locale

/** Returns what the screen shows: why a picture is refused, or the decision and probabilities. */
fun describe(answer: Answer, point: OperatingPoint?): String {
    answer.refusal?.let { return "Refused: ${it.reasons.joinToString("; ")}." }
    val decision = answer.decision
    val lines = mutableListOf<String>()
    if (point == null) {
        lines += decision.label
        lines += "The most probable class. No threshold was frozen for this engine."
    } else {
        val positive = decision.positive!!
        val relation = if (positive) "reaches" else "is below"
        val sum = point.positive.joinToString(" + ")
        lines += if (positive) "Positive" else "Negative"
        lines += "The score of $sum, ${digits(decision.score!!)}, $relation the threshold of " +
            "${digits(point.threshold)}."
    }
    val ranked = decision.probabilities.entries.sortedByDescending { it.value }
    lines += ranked.map { "${it.key} ${digits(it.value.toDouble())}" }
    return lines.joinToString("\n")
}

private fun digits(value: Double) = String.format(Locale.ROOT, "%.3f", value)
