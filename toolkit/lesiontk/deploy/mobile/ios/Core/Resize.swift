/// Crop and resize, equal to the toolkit's to the last bit: Pillow's antialiased bilinear filter,
/// whose weights are rounded to 22 bits, columns before rows, each pass rounded to 8 bits.

private let (precision, half) = (22, 1 << 21)

/// A picture of four bytes a pixel, `rowBytes` from row to row.
public struct Pixels {
    let width, height, rowBytes: Int
    let bytes: [UInt8]
    let red: Int  // its place: 0 in RGBA, 2 in BGRA

    public init(width: Int, height: Int, rowBytes: Int, bytes: [UInt8], red: Int = 0) {
        (self.width, self.height, self.rowBytes) = (width, height, rowBytes)
        (self.bytes, self.red) = (bytes, red)
    }
}

/// Reduces `extent` of `length` pixels, from `start`, to `size`; it reaches beyond the crop.
private struct Filter {
    var first: [Int] = []
    var weights: [[Int]] = []

    init(length: Int, start: Int, extent: Int, size: Int) {
        let scale = Double(extent) / Double(size)
        let support = max(scale, 1)
        for out in 0..<size {
            let center = Double(start) + (Double(out) + 0.5) * scale
            let low = max(0, Int(center - support + 0.5))
            let high = min(length, Int(center + support + 0.5))
            let row = (low..<high).map { (at: Int) -> Double in
                let distance: Double = (Double(at) - center + 0.5) * (1 / support)
                return max(0, 1 - abs(distance))
            }
            let sum: Double = row.reduce(0, +)
            first.append(low)
            weights.append(row.map { Int(0.5 + $0 / sum * Double(1 << precision)) })
        }
    }
}

private func toByte(_ sum: Int) -> UInt8 { UInt8(min(255, max(0, sum >> precision))) }

/// Returns RGB bytes [S, S, 3] of the largest centered square, or with "stretch" of the whole.
public func cropAndResize(_ pixels: Pixels, size: Int, cropMode: String) throws -> [UInt8] {
    guard cropMode == "crop" || cropMode == "stretch" else {
        throw Failure("crop_mode is \(cropMode); expected crop or stretch")
    }
    let crop = cropMode == "crop"
    let side = min(pixels.width, pixels.height)
    let (across, down) = crop ? (side, side) : (pixels.width, pixels.height)
    let (left, top) = ((pixels.width - across) / 2, (pixels.height - down) / 2)
    let columns = Filter(length: pixels.width, start: left, extent: across, size: size)
    let rows = Filter(length: pixels.height, start: top, extent: down, size: size)

    let stride = size * 3
    let begin = rows.first[0]
    let end = rows.first[size - 1] + rows.weights[size - 1].count
    let places = [pixels.red, 1, 2 - pixels.red]
    var narrow = [UInt8](repeating: 0, count: (end - begin) * stride)
    for to in narrow.indices {
        let x = to % stride / 3
        var at = (begin + to / stride) * pixels.rowBytes + columns.first[x] * 4 + places[to % 3]
        var sum = half
        for weight in columns.weights[x] {
            sum += Int(pixels.bytes[at]) * weight
            at += 4
        }
        narrow[to] = toByte(sum)
    }
    return (0..<size * stride).map { to in
        let y = to / stride
        var at = (rows.first[y] - begin) * stride + to % stride
        var sum = half
        for weight in rows.weights[y] {
            sum += Int(narrow[at]) * weight
            at += stride
        }
        return toByte(sum)
    }
}
