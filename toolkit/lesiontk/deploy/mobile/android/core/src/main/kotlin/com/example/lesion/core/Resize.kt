/**
 * Crop and resize, equal to the toolkit's to the last bit: Pillow's antialiased bilinear filter,
 * whose weights are rounded to 22 bits, columns before rows, each pass rounded to 8 bits.
 */
package com.example.lesion.core

import kotlin.math.*

private const val PRECISION = 22
private const val HALF = 1 shl (PRECISION - 1)

/** A picture as [bytes] of red, green, blue and any fourth byte, [rowBytes] from row to row. */
class Pixels(val width: Int, val height: Int, val rowBytes: Int, val bytes: ByteArray)

/** Reduces [extent] of [length] pixels, from [start], to [size]; it reaches beyond the crop. */
private class Filter(length: Int, start: Int, extent: Int, size: Int) {
    val first = IntArray(size)
    val weights = Array(size) { out ->
        val scale = extent.toDouble() / size
        val support = max(scale, 1.0)
        val center = start + (out + 0.5) * scale
        val low = max(0, (center - support + 0.5).toInt())
        val high = min(length, (center + support + 0.5).toInt())
        val row = DoubleArray(high - low) {
            max(0.0, 1 - abs((it + low - center + 0.5) * (1 / support)))
        }
        val sum = row.sum()
        first[out] = low
        IntArray(row.size) { (0.5 + row[it] / sum * (1 shl PRECISION)).toInt() }
    }
}

private fun toByte(sum: Int) = (sum shr PRECISION).coerceIn(0, 255).toByte()

/** Returns RGB bytes [S, S, 3] of the largest centered square, or with "stretch" of the whole. */
fun cropAndResize(pixels: Pixels, size: Int, cropMode: String): ByteArray {
    require(cropMode == "crop" || cropMode == "stretch") {
        "crop_mode is $cropMode; expected crop or stretch"
    }
    val crop = cropMode == "crop"
    val side = min(pixels.width, pixels.height)
    val left = if (crop) (pixels.width - side) / 2 else 0
    val top = if (crop) (pixels.height - side) / 2 else 0
    val columns = Filter(pixels.width, left, if (crop) side else pixels.width, size)
    val rows = Filter(pixels.height, top, if (crop) side else pixels.height, size)

    val stride = size * 3
    val begin = rows.first[0]
    val narrow = ByteArray((rows.first[size - 1] + rows.weights[size - 1].size - begin) * stride)
    for (to in narrow.indices) {
        val x = to % stride / 3
        var at = (begin + to / stride) * pixels.rowBytes + columns.first[x] * 4 + to % 3
        var sum = HALF
        for (weight in columns.weights[x]) {
            sum += (pixels.bytes[at].toInt() and 255) * weight
            at += 4
        }
        narrow[to] = toByte(sum)
    }
    return ByteArray(size * stride) { to ->
        val y = to / stride
        var at = (rows.first[y] - begin) * stride + to % stride
        var sum = HALF
        for (weight in rows.weights[y]) {
            sum += (narrow[at].toInt() and 255) * weight
            at += stride
        }
        toByte(sum)
    }
}
