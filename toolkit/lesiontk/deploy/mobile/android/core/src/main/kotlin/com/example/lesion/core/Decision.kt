/** The decision from an engine's probabilities, as in the toolkit's decision.py. */
package com.example.lesion.core

import kotlin.math.abs

private const val SUM_TOLERANCE = 1e-2 // int8 probabilities have steps of 1/256

/**
 * [label] is the most probable class, [positive] whether the [score], the summed probability of
 * the positive labels, reaches the threshold. Both are null if none was frozen for the engine.
 */
class Decision(
    val label: String,
    val probabilities: Map<String, Float>,
    val score: Double?,
    val positive: Boolean?,
)

fun areProbabilities(values: FloatArray) =
    values.all { it.isFinite() && it >= 0 } &&
        abs(values.sumOf { it.toDouble() } - 1) <= SUM_TOLERANCE

fun indexOfMax(values: FloatArray) = values.indices.maxBy { values[it] }

fun decide(values: FloatArray, contract: Contract): Decision {
    val point = contract.operatingPoint
    val score = point?.let {
        contract.labels.indices.filter { at -> contract.labels[at] in it.positive }
            .sumOf { at -> values[at].toDouble() }
    }
    return Decision(
        contract.labels[indexOfMax(values)],
        contract.labels.zip(values.toList()).toMap(),
        score,
        point?.let { score!! >= it.threshold },
    )
}
